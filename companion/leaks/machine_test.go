package leaks

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// start runs a shell script in new namespaces, and then waits.
func start(t testing.TB, flags uintptr, script string, args ...string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-ec", script + "\necho ready; read line || true", "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a process in new namespaces (it takes root): %v", err)
	}
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		defer stdin.Close()
		// It may be stopped, and then hears of nothing else.
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("end the process: %v", err)
		}
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("wait for the process: %v", err)
	}
	return cmd.Process.Pid, end
}

func identify(t testing.TB, path string) sandbox.ID {
	t.Helper()
	id, err := sandbox.Identify(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func found(t testing.TB, id sandbox.ID) bool {
	t.Helper()
	found, err := Machine{}.Search(t.Context(), []sandbox.ID{id})
	if err != nil {
		t.Fatal(err)
	}
	return found[id]
}

// awaitGone waits until the namespace is nowhere; a thread's or a mount's end
// takes the kernel a moment.
func awaitGone(t testing.TB, id sandbox.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for found(t, id) {
		if ctx.Err() != nil {
			t.Fatalf("%+v is still found", id)
		}
		runtime.Gosched()
	}
}

func netOf(pid int) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

func TestSearchFindsProcesses(t *testing.T) {
	pid, end := start(t, unix.CLONE_NEWNET, "")
	id := identify(t, netOf(pid))
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if !found(t, id) {
		t.Error("the namespace of a stopped process is not found")
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// The number of an old namespace in the record of this one, and this
	// one's in that of an old namespace.
	for name, change := range map[string]func(*sandbox.ID){
		"cookie": func(id *sandbox.ID) { id.Cookie++ },
		"device": func(id *sandbox.ID) { id.Device++ },
		"inode":  func(id *sandbox.ID) { id.Inode += 1 << 20 },
		"boot":   func(id *sandbox.ID) { id.Boot = "another" },
	} {
		old := id
		change(&old)
		both, err := Machine{}.Search(t.Context(), []sandbox.ID{old, id})
		if err != nil || both[old] || !both[id] {
			t.Errorf("one with another %s is not told from the living: %v, %v", name, both, err)
		}
	}
	unsure := id
	unsure.Cookie = 0
	if !found(t, unsure) {
		t.Error("without a cookie the inode's number is not enough to keep a namespace")
	}
	end()
	awaitGone(t, id)
}

// inThread runs f in a thread that ends with it. That takes another than the
// process's first, which the Go runtime never ends.
func inThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			inThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

func TestSearchFindsThreads(t *testing.T) {
	ids, stop, done := make(chan sandbox.ID, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		inThread(func() {
			ns, err := netns.New()
			if err != nil {
				t.Error(err)
				ids <- sandbox.ID{}
				return
			}
			ns.Close()
			id, err := sandbox.Identify("/proc/thread-self/ns/net")
			if err != nil {
				t.Error(err)
			}
			ids <- id
			<-stop
		})
	}()
	id := <-ids
	if !found(t, id) {
		t.Error("the namespace of a thread is not found")
	}
	close(stop)
	<-done
	awaitGone(t, id)
}

func TestSearchFindsOpenFiles(t *testing.T) {
	pid, end := start(t, unix.CLONE_NEWNET, "")
	id := identify(t, netOf(pid))
	f, err := os.Open(netOf(pid))
	if err != nil {
		t.Fatal(err)
	}
	end()
	if !found(t, id) {
		t.Error("a namespace that is an open file is not found")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, id)
}

// TestSearchFindsMounts: a handle where this process can't see it, without any
// process in the namespace.
func TestSearchFindsMounts(t *testing.T) {
	const bind = `
		mount --make-rprivate / 2>/dev/null || : in a chroot it need be no mount
		touch "$1"
		unshare --net mount --bind /proc/self/ns/net "$1"`
	for name, tt := range map[string]struct{ file, more string }{
		"plain":    {"handle", ""},
		"escaped":  {"a handle", ""},
		"overlaid": {"handle", `touch "$1.other"; mount --bind "$1.other" "$1"`},
	} {
		handle := filepath.Join(t.TempDir(), tt.file)
		pid, end := start(t, unix.CLONE_NEWNS, bind+"\nstat -Lc %i \"$1\" >\"$1.inode\"\n"+tt.more, handle)
		var id sandbox.ID
		if name == "overlaid" {
			id = identify(t, "/proc/self/ns/net")
			data, err := os.ReadFile(handle + ".inode")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscan(string(data), &id.Inode); err != nil {
				t.Fatal(err)
			}
		} else {
			id = identify(t, filepath.Join("/proc", fmt.Sprint(pid), "root", handle))
		}
		if _, err := os.Stat(handle); err != nil {
			t.Fatal(err)
		}
		id.Path = handle
		if held, err := id.Held(); held || err != nil {
			t.Errorf("%s: the handle is seen here: %v", name, err)
		}
		if !found(t, id) {
			t.Errorf("%s: a mounted namespace is not found", name)
		}
		end()
		awaitGone(t, id)
	}
}

func TestSearchEndsWithItsContext(t *testing.T) {
	pid, _ := start(t, unix.CLONE_NEWNET, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := (Machine{}).Search(ctx, []sandbox.ID{identify(t, netOf(pid))}); err == nil {
		t.Errorf("a search that was cut short answers %v", got)
	}
}

func TestHasDevice(t *testing.T) {
	inThread(func() {
		ns, err := netns.New()
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		for _, want := range []bool{false, true} {
			if has, err := (Machine{}).HasDevice("dov0"); has != want || err != nil {
				t.Errorf("got %v, %v; want %v", has, err, want)
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "dov0"
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0"}); err != nil && !want {
				t.Error(err)
			}
		}
	})
}

// TestUnmapPorts has a program in portmap's place that says how it was called,
// and a flow that was led to the container's address.
func TestUnmapPorts(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Run(t, "conntrack -I --timeout 600 -p udp -s 192.0.2.1 -d 172.17.0.4 --sport 5555 --dport 31000 -r 9.0.0.2 -q 192.0.2.1 --reply-port-src 80 --reply-port-dst 5555")
	dir := t.TempDir()
	program, called := filepath.Join(dir, "portmap"), filepath.Join(dir, "called")
	script := "#!/bin/sh\necho $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME >" + called + "\ncat >>" + called + "\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	e := ipam.Entry{Overlay: "dcos", Owner: ipam.Owner{ContainerID: "c", IfName: "eth0"}}
	if err := (Machine{}).UnmapPorts(t.Context(), e); err != nil {
		t.Errorf("without port mappings: %v", err)
	}
	for network, want := range map[string]string{"": "dcos", "front": "front"} {
		e.Home.PortMapper, e.Home.Network = program, network
		if err := (Machine{}).UnmapPorts(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(called)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"DEL c eth0\n", `"name":"` + want + `"`, `"portMappings":[{`} {
			if !strings.Contains(string(data), part) {
				t.Errorf("%q is not in %q", part, data)
			}
		}
	}
	e.Addr = netip.MustParseAddr("9.0.0.2")
	if err := (Machine{}).UnmapPorts(t.Context(), e); err != nil {
		t.Error(err)
	}
	if left := netnstest.Run(t, "conntrack -L"); strings.Contains(left, "9.0.0.2") {
		t.Errorf("the next container with the address would get what is sent by\n%s", left)
	}
	e.Home.PortMapper = filepath.Join(dir, "absent")
	if err := (Machine{}).UnmapPorts(t.Context(), e); err == nil {
		t.Error("a program that is not there unmaps ports")
	}
	e.Home.Netns.Boot = "another"
	if err := (Machine{}).UnmapPorts(t.Context(), e); err != nil {
		t.Errorf("rules of another boot: %v", err)
	}
}

func BenchmarkSearch(b *testing.B) {
	pid, _ := start(b, unix.CLONE_NEWNET, "")
	id := identify(b, netOf(pid))
	for b.Loop() {
		if !found(b, id) {
			b.Fatal("not found")
		}
	}
}
