package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// binDir has the programs that these tests run.
var binDir string

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) != "" {
		ownLab()
		return
	}
	dir, err := lab.TempDir()
	if err == nil {
		err = lab.BuildTools(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// newLab makes a lab with hosts a, b, … and closes it when the test ends.
func newLab(t *testing.T, hosts int) (*lab.Lab, []*lab.Host) {
	t.Helper()
	l, err := lab.New(lab.Options{Bin: binDir, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range hosts {
		name := string(rune('a' + i))
		if _, err := l.AddHost(t.Context(), name, netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + i)})); err != nil {
			t.Fatal(err)
		}
	}
	return l, l.Hosts()
}

func TestHostsReachEachOtherAndOutside(t *testing.T) {
	l, hosts := newLab(t, 2)
	ctx := t.Context()
	a, b := hosts[0], hosts[1]
	for _, h := range []*lab.Host{b, l.Outside} {
		if _, err := h.Serve(ctx, 7000); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []netip.Addr{b.Addr, b.Addr6, lab.Router4, lab.Router6, lab.World4, lab.World6} {
		want := a.Addr
		if to.Is6() {
			want = a.Addr6
		}
		if _, err := a.Run(ctx, "busybox", "ping", "-c1", "-W5", to.String()); err != nil {
			t.Error(err)
		}
		if seen, err := a.Dial(ctx, netip.AddrPortFrom(to, 7000)); err != nil {
			t.Error(err)
		} else if seen.Addr() != want {
			t.Errorf("%s sees a as %s, not %s", to, seen, want)
		}
		if seen, err := a.DialUDP(ctx, netip.AddrPortFrom(to, 7000)); err != nil {
			t.Error(err)
		} else if seen.Addr() != want {
			t.Errorf("%s sees a as %s by UDP, not %s", to, seen, want)
		}
	}
}

func TestRun(t *testing.T) {
	_, hosts := newLab(t, 1)
	ctx, a := t.Context(), hosts[0]

	if out, err := a.Run(ctx, "hostname"); err != nil || out != "a\n" {
		t.Errorf("hostname: %q, %v", out, err)
	}
	if out, err := a.RunInput(ctx, []byte("hello"), "cat"); err != nil || out != "hello" {
		t.Errorf("cat: %q, %v", out, err)
	}
	_, err := a.Run(ctx, "sh", "-c", "echo no such luck >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "no such luck") || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("the error of a failed command: %v", err)
	}
	if _, err := a.Run(ctx, "no-such-program"); err == nil {
		t.Error("a program that does not exist was run")
	}
	// A child that outlives the command and keeps its output is not waited
	// for.
	if out, err := a.Run(ctx, "sh", "-c", "sleep 1000 & echo done"); err != nil || out != "done\n" {
		t.Errorf("a command that leaves a child: %q, %v", out, err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := a.Run(short, "sleep", "1000"); err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("a command that goes on for too long: %v", err)
	}
	// Orphans are reaped by the first process.
	if _, err := a.Run(ctx, "sh", "-c", "(sleep 0 &)"); err != nil {
		t.Error(err)
	}
	if err := lab.Until(ctx, "no zombies", func(ctx context.Context) error {
		out, err := a.Run(ctx, "sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status; true")
		if err == nil && out != "" {
			err = fmt.Errorf("zombies: %s", out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestProcess covers a daemon's life: log, stop, kill, failure.
func TestProcess(t *testing.T) {
	_, hosts := newLab(t, 1)
	ctx, a := t.Context(), hosts[0]

	p, err := a.Start(ctx, "daemon", "sh", "-c", `trap "echo bye; exit 0" TERM; echo hello; while :; do sleep 0.05; done`)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitLog(ctx, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
	if p.Log() != "hello\nbye\n" {
		t.Errorf("the log is %q", p.Log())
	}
	if err := p.Signal(15); err != nil {
		t.Errorf("a signal to a process that has ended: %v", err)
	}

	// A second one of that name has a log of its own.
	p, err = a.Start(ctx, "daemon", "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if p.Log() != "" {
		t.Errorf("the second log is %q", p.Log())
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if err := p.Wait(ctx); err == nil || !strings.Contains(err.Error(), "status 137") {
		t.Errorf("Wait for a killed process: %v", err)
	}

	p, err = a.Start(ctx, "failing", "sh", "-c", "echo out of luck; exit 4")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitLog(ctx, "never"); err == nil || !strings.Contains(err.Error(), "out of luck") || !strings.Contains(err.Error(), "status 4") {
		t.Errorf("WaitLog of a process that ends: %v", err)
	}
}

// TestReboot checks what a power cut keeps: files on disk, and nothing else.
func TestReboot(t *testing.T) {
	_, hosts := newLab(t, 2)
	ctx, a, b := t.Context(), hosts[0], hosts[1]
	kept := []string{"/var/lib/dcos-overlay/lease.json", "/etc/dcos-overlay/agent.json", "/var/lib/dcos-overlay-coordinator/x", "/etc/hostname"}
	lost := []string{"/run/dcos-overlay/networks/x", "/var/run/x", "/tmp/x"}
	for _, path := range append(kept, lost...) {
		if err := a.WriteFile(ctx, path, []byte(path)); err != nil {
			t.Fatal(err)
		}
		if there, err := b.Exists(ctx, path); err != nil || there && path != "/etc/hostname" {
			t.Errorf("host b has %s of host a: %v, %v", path, there, err)
		}
		if data, err := os.ReadFile(path); err == nil && string(data) == path {
			t.Errorf("the machine has %s of host a", path)
		}
	}
	p, err := a.Start(ctx, "daemon", "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Run(ctx, "ip", "link", "add", "mine", "type", "bridge"); err != nil {
		t.Fatal(err)
	}
	if err := a.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(ctx); err == nil || !strings.Contains(err.Error(), "went down") {
		t.Errorf("a process of before the reboot: %v", err)
	}
	for _, path := range kept {
		if data, err := a.ReadFile(ctx, path); err != nil || string(data) != path {
			t.Errorf("after the reboot %s is %q, %v", path, data, err)
		}
	}
	for _, path := range lost {
		if there, err := a.Exists(ctx, path); err != nil || there {
			t.Errorf("after the reboot %s exists: %v, %v", path, there, err)
		}
	}
	if out, err := a.Run(ctx, "ls", "/sys/class/net"); err != nil || out != "eth0\nlo\n" {
		t.Errorf("after the reboot the links are %q, %v", out, err)
	}
	if _, err := b.Serve(ctx, 7000); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Dial(ctx, netip.AddrPortFrom(b.Addr, 7000)); err != nil {
		t.Error(err)
	}
	if err := a.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Run(ctx, "true"); err == nil || !strings.Contains(err.Error(), "off") {
		t.Errorf("a command on a host that is off: %v", err)
	}
}

// TestCable cuts the underlay, with and without the host noticing.
func TestCable(t *testing.T) {
	_, hosts := newLab(t, 2)
	ctx, a, b := t.Context(), hosts[0], hosts[1]
	if _, err := b.Serve(ctx, 7000); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(b.Addr, 7000)
	stream, err := a.Stream(ctx, to, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []struct {
		name    string
		do      func() error
		carrier string
	}{
		{"Unplug", b.Unplug, "0\n"},
		{"Isolate", b.Isolate, "1\n"},
	} {
		if err := cut.do(); err != nil {
			t.Fatal(err)
		}
		if out, err := b.Run(ctx, "cat", "/sys/class/net/eth0/carrier"); err != nil || out != cut.carrier {
			t.Errorf("%s: the carrier is %q, %v", cut.name, out, err)
		}
		if _, err := a.Run(ctx, "probe", "dial", "-timeout", "200ms", to.String()); err == nil {
			t.Errorf("%s: a still reaches b", cut.name)
		}
		if err := b.Plug(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Dial(ctx, to); err != nil {
			t.Errorf("after %s and Plug: %v", cut.name, err)
		}
	}
	// The connection stood it, but not without a gap.
	gap, err := stream.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if gap < 100*time.Millisecond {
		t.Errorf("the stream's longest gap is %s, but the cable was out for 200ms", gap)
	}
}

func TestHTTP(t *testing.T) {
	_, hosts := newLab(t, 1)
	ctx, a := t.Context(), hosts[0]
	if err := a.WriteFile(ctx, "/srv/x/index.html", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	p, err := a.Start(ctx, "httpd", "busybox", "httpd", "-f", "-p", "127.0.0.1:8000", "-h", "/srv/x")
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Until(ctx, "an answer", func(ctx context.Context) error {
		status, body, err := a.HTTP(ctx, "GET", "http://127.0.0.1:8000/", nil)
		if err == nil && (status != 200 || string(body) != "hello") {
			t.Fatalf("the answer is %d %q", status, body)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if status, _, err := a.HTTP(ctx, "GET", "http://127.0.0.1:8000/nothing", nil); err != nil || status != 404 {
		t.Errorf("of nothing: %d, %v", status, err)
	}
	// Whatever threads dial, all are back in the machine's network later.
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, _, err := a.HTTP(ctx, "GET", "http://127.0.0.1:8000/", nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		if space, err := os.Readlink(thread); err == nil && space != own {
			t.Errorf("%s is in %s, not in the machine's network %s", thread, space, own)
		}
	}

	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if _, _, err := a.HTTP(ctx, "GET", "http://127.0.0.1:8000/", nil); err == nil {
		t.Error("a server that was killed answers")
	}
	if _, err := a.DialContext(ctx, "tcp", "localhost:1"); err == nil {
		t.Error("a name was dialled; that would be looked up on the machine")
	}
}

// TestCloseTellsOfLeftovers has a process of the machine in a host's network,
// which does not end with the host.
func TestCloseTellsOfLeftovers(t *testing.T) {
	l, err := lab.New(lab.Options{Bin: binDir})
	if err != nil {
		t.Fatal(err)
	}
	h, err := l.AddHost(t.Context(), "a", netip.MustParseAddr("172.17.0.2"))
	if err != nil {
		t.Fatal(errors.Join(err, l.Close()))
	}
	stranger := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", h.PID()), "sh", "-c", "echo in; exec sleep 1000")
	out, err := stranger.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Error(err)
	}
	// What starts in the clock tick in which a host ends may be another's.
	uptime := func() string {
		text, _ := os.ReadFile("/proc/uptime")
		first, _, _ := strings.Cut(string(text), " ") // the time idle follows
		return first
	}
	for began := uptime(); uptime() == began; {
		time.Sleep(time.Millisecond)
	}
	err = l.Close()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", stranger.Process.Pid)) {
		t.Errorf("Close with a process left: %v", err)
	}
	stranger.Process.Kill()
	stranger.Wait()
	if left := traces(t, os.Getpid()); len(left) > 0 {
		t.Errorf("Close left %q", left)
	}
}

func TestAddHostRefuses(t *testing.T) {
	l, _ := newLab(t, 1)
	for _, bad := range []struct{ name, addr, says string }{
		{"a", "172.17.0.9", "there already"},
		{"b", "172.17.0.2", "there already"},
		{"outside", "172.17.0.9", "there already"},
		{"b", "10.0.0.1", "not a free address"},
		{"b", "172.17.0.1", "not a free address"},
		{"Big", "172.17.0.9", "lower-case"},
		{"fourteen-chars", "172.17.0.9", "1 to 13"},
	} {
		if _, err := l.AddHost(t.Context(), bad.name, netip.MustParseAddr(bad.addr)); err == nil || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("AddHost(%s, %s): %v", bad.name, bad.addr, err)
		}
	}
	if _, err := lab.New(lab.Options{Bin: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "built first") {
		t.Errorf("a lab without programs: %v", err)
	}
}

// TestLabsSideBySide: the kernel gives the numbers of the namespaces of a
// host that ends to hosts that start at that moment. A lab that closes does
// not take another's hosts for its own leftovers.
func TestLabsSideBySide(t *testing.T) {
	coming, _ := newLab(t, 0)
	going, hosts := newLab(t, 4)
	var both errgroup.Group
	both.Go(func() error {
		for range 3 {
			for _, h := range hosts {
				if err := h.Reboot(t.Context()); err != nil {
					return err
				}
			}
		}
		return going.Close()
	})
	both.Go(func() error {
		for i := range 24 {
			addr := netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + i)})
			if _, err := coming.AddHost(t.Context(), string(rune('a'+i)), addr); err != nil {
				return err
			}
		}
		return nil
	})
	if err := both.Wait(); err != nil {
		t.Error(err)
	}
}
