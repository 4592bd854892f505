// Package integration tests the built programs on several hosts: real kernel,
// real etcd, real Docker Engine, containerd, podman and cnitool, in a lab.
package integration

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// bin is where the programs under test are built.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	bin, err = lab.TempDir()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if err := lab.Build(ctx, bin); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// newScene makes the sample cluster, coordinator running, and takes it down
// with the test. When the test failed, it shows what the daemons logged.
func newScene(t *testing.T) *scene.Scene {
	t.Helper()
	l, err := lab.New(lab.Options{Bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := scene.New(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the coordinator's log:\n%s", s.Coordinator.Log())
			for name, p := range s.Companions {
				t.Logf("the log of companion %s:\n%s", name, p.Log())
			}
		}
	})
	return s
}

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// awaitReach waits until a place reaches a server, and is seen there as a
// source: hosts hear of each other in a moment, not at once.
func awaitReach(t *testing.T, from *lab.Place, to netip.AddrPort, source netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, fmt.Sprintf("%s to be reached from %s", to, source), func(ctx context.Context) error {
		seen, err := from.Dial(ctx, to)
		if err == nil && seen.Addr() != source {
			err = fmt.Errorf("it is seen as %s, not %s", seen, source)
		}
		return err
	}))
}

// serverOf is where a container of an IPv4 overlay serves.
func serverOf(c *lab.Container) netip.AddrPort { return netip.AddrPortFrom(c.IP4, scene.Port) }
