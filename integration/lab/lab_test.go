package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// binDir has the programs that these tests run.
var binDir string

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) != "" {
		ownLab()
		return
	}
	dir, err := os.MkdirTemp("", "dcos-overlay-lab-bin")
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
