package leaks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// stage is a cleaner on a fake host with a real store.
type stage struct {
	*fakeHost
	pool    ipam.Pool
	cleaner *Cleaner
	now     time.Time
	log     *bytes.Buffer
}

func newStage(dir string) *stage {
	s := &stage{
		fakeHost: newFakeHost(),
		pool: ipam.Pool{
			Dir: dir, Overlay: "dcos",
			V4: lease.Side{netip.MustParsePrefix("9.0.0.0/25")}, V6: lease.Side{netip.MustParsePrefix("fd01::/64")},
		},
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		log: &bytes.Buffer{},
	}
	s.restart()
	return s
}

// restart forgets what was seen, as a companion that is started again.
func (s *stage) restart() {
	s.cleaner = New(Options{
		Dir: s.pool.Dir, System: s.fakeHost,
		Now: func() time.Time { return s.now },
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	})
}

func ownerOf(id string) ipam.Owner { return ipam.Owner{ContainerID: id, IfName: "eth0"} }

func veth(id string) string { return "dov-" + id }

func path(id string) string { return "/run/netns/" + id }

// attach is what ADD does.
func (s *stage) attach(id string, ours bool) error {
	home := &ipam.Home{Netns: s.unshare(path(id))}
	if ours {
		home.HostIf = veth(id)
		s.veths[home.HostIf] = true
	}
	_, err := s.pool.Reserve(context.Background(), ownerOf(id), home, nil)
	return err
}

// vanish ends a container without DEL.
func (s *stage) vanish(id string) {
	ns := s.handles[path(id)]
	delete(s.handles, path(id))
	delete(s.living, ns.Cookie)
	delete(s.veths, veth(id))
}

func (s *stage) sweep(t testing.TB) []string {
	t.Helper()
	freed, err := s.cleaner.Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return freed
}

func (s *stage) held(t interface{ Fatal(...any) }, id string) int {
	addrs, err := s.pool.Held(context.Background(), ownerOf(id))
	if err != nil {
		t.Fatal(err)
	}
	return len(addrs)
}

// newTestStage has one container, c, attached.
func newTestStage(t testing.TB, ours bool) *stage {
	t.Helper()
	s := newStage(t.TempDir())
	if err := s.attach("c", ours); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVanishedContainerIsFreedAfterGrace(t *testing.T) {
	for _, ours := range []bool{true, false} {
		s := newTestStage(t, ours)
		if freed := s.sweep(t); freed != nil || s.searchCount() != 0 {
			t.Errorf("freed %q of a living container after %d searches", freed, s.searchCount())
		}
		s.vanish("c")
		for range 3 {
			if freed := s.sweep(t); freed != nil {
				t.Errorf("freed %q before the grace period was over", freed)
			}
			s.now = s.now.Add(DefaultGrace/3 + time.Nanosecond)
		}
		want := []string{"dcos: 9.0.0.2 of c/eth0", "dcos: fd01::2 of c/eth0"}
		if freed := s.sweep(t); !slices.Equal(freed, want) {
			t.Errorf("freed %q, want %q", freed, want)
		}
		if s.searchCount() != 4 {
			t.Errorf("%d searches in 4 sweeps with candidates", s.searchCount())
		}
		for _, word := range []string{"overlay=dcos", "container=c ", "interface=eth0", "address=9.0.0.2 ", "address=fd01::2 ", "dead_for=1m0s"} {
			if !strings.Contains(s.log.String(), word) {
				t.Errorf("%q is not in the log: %s", word, s.log)
			}
		}
		if entries, err := s.pool.Entries(t.Context()); err != nil || len(entries) != 0 {
			t.Errorf("left: %v, %v", entries, err)
		}
	}
}

// TestOneSightIsNotEnough: however long ago the container died, and however
// long no companion ran.
func TestOneSightIsNotEnough(t *testing.T) {
	s := newTestStage(t, true)
	s.vanish("c")
	s.now = s.now.Add(24 * time.Hour)
	s.sweep(t)
	s.restart()
	s.now = s.now.Add(24 * time.Hour)
	if freed := s.sweep(t); freed != nil {
		t.Errorf("freed %q at the first sight", freed)
	}
}

// TestWhatKeepsAnAddress has each reason alone not to free.
func TestWhatKeepsAnAddress(t *testing.T) {
	for name, tt := range map[string]struct {
		ours  bool
		keeps func(s *stage)
	}{
		"handle, no process": {false, func(s *stage) { delete(s.living, s.handles[path("c")].Cookie) }},
		"process, handle unmounted": {false, func(s *stage) {
			delete(s.handles, path("c"))
		}},
		"handle is another's, process lives": {false, func(s *stage) {
			delete(s.handles, path("c"))
			s.unshare(path("c"))
		}},
		"handle elsewhere only": {false, func(s *stage) {
			id := s.handles[path("c")]
			s.vanish("c")
			s.handles["/elsewhere"] = id
		}},
		"veth": {true, func(s *stage) {
			s.vanish("c")
			s.veths[veth("c")] = true
		}},
		"namespace can't be looked at": {true, func(s *stage) { s.vanish("c"); s.blind["held"] = true }},
		"veth can't be looked at":      {true, func(s *stage) { s.vanish("c"); s.blind["device"] = true }},
		"processes can't be looked at": {true, func(s *stage) { s.vanish("c"); s.blind["search"] = true }},
	} {
		s := newTestStage(t, tt.ours)
		tt.keeps(s)
		for range 5 {
			freed, err := s.cleaner.Sweep(t.Context())
			if freed != nil {
				t.Errorf("%s: freed %q", name, freed)
			}
			if blind := len(s.blind) > 0; blind != errors.Is(err, errBlind) {
				t.Errorf("%s: the error is %v", name, err)
			}
			s.now = s.now.Add(DefaultGrace)
		}
		if n := s.held(t, "c"); n != 2 {
			t.Errorf("%s: %d addresses are left of 2", name, n)
		}
		// The reason gone, the address goes.
		s.vanish("c")
		delete(s.handles, "/elsewhere")
		clear(s.living)
		clear(s.blind)
		s.sweep(t)
		s.now = s.now.Add(DefaultGrace)
		if freed := s.sweep(t); len(freed) != 2 {
			t.Errorf("%s: freed %q once the reason was gone", name, freed)
		}
	}
}

func TestSignOfLifeStartsTheGraceAnew(t *testing.T) {
	s := newTestStage(t, true)
	s.vanish("c")
	s.sweep(t)
	s.now = s.now.Add(DefaultGrace / 2)
	s.veths[veth("c")] = true
	s.sweep(t)
	s.now = s.now.Add(DefaultGrace / 2)
	delete(s.veths, veth("c"))
	if freed := s.sweep(t); freed != nil {
		t.Errorf("freed %q though it was seen alive within the grace period", freed)
	}
	s.now = s.now.Add(DefaultGrace)
	if freed := s.sweep(t); len(freed) != 2 {
		t.Errorf("freed %q", freed)
	}
}

// TestNewOwnerStartsAnew: whoever has the address now was never seen dead.
func TestNewOwnerStartsAnew(t *testing.T) {
	s := newTestStage(t, true)
	s.vanish("c")
	s.sweep(t)
	if err := s.pool.Release(t.Context(), ownerOf("c")); err != nil {
		t.Fatal(err)
	}
	home := &ipam.Home{Netns: s.unshare(path("d"))}
	if _, err := s.pool.Reserve(t.Context(), ownerOf("d"), home, []netip.Addr{netip.MustParseAddr("9.0.0.2"), netip.MustParseAddr("fd01::2")}); err != nil {
		t.Fatal(err)
	}
	s.vanish("d")
	s.now = s.now.Add(DefaultGrace)
	if freed := s.sweep(t); freed != nil {
		t.Errorf("freed %q, whose owner was not seen before", freed)
	}
}

// TestLastLook: what happens between the search and the removal counts.
func TestLastLook(t *testing.T) {
	for name, meanwhile := range map[string]func(s *stage){
		"the veth is there": func(s *stage) { s.veths[veth("c")] = true },
		"detached and attached again": func(s *stage) {
			if err := s.pool.Release(context.Background(), ownerOf("c")); err != nil {
				panic(err)
			}
			if err := s.attach("c", true); err != nil {
				panic(err)
			}
		},
	} {
		s := newTestStage(t, true)
		s.vanish("c")
		s.sweep(t)
		s.now = s.now.Add(DefaultGrace)
		s.meanwhile = func() { meanwhile(s) }
		if freed := s.sweep(t); freed != nil {
			t.Errorf("%s: freed %q", name, freed)
		}
		if n := s.held(t, "c"); n != 2 {
			t.Errorf("%s: %d addresses are left of 2", name, n)
		}
	}
}

func TestUnknownIsKeptAndToldOnce(t *testing.T) {
	s := newStage(t.TempDir())
	for i := range 6 {
		if _, err := s.pool.Reserve(t.Context(), ownerOf(fmt.Sprint("u", i)), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if freed := s.sweep(t); freed != nil || s.cleaner.Unknown() != 12 {
			t.Errorf("freed %q, %d unknown", freed, s.cleaner.Unknown())
		}
		s.now = s.now.Add(DefaultGrace)
	}
	if n := strings.Count(s.log.String(), "\n"); n != 1 || !strings.Contains(s.log.String(), "unknown=12") {
		t.Errorf("the log has %d lines: %s", n, s.log)
	}
	if err := s.pool.Release(t.Context(), ownerOf("u0")); err != nil {
		t.Fatal(err)
	}
	if s.sweep(t); s.cleaner.Unknown() != 10 {
		t.Errorf("%d unknown after a DEL", s.cleaner.Unknown())
	}
}

// TestRecordWithoutReservation is what a plugin leaves that is killed between
// the two.
func TestRecordWithoutReservation(t *testing.T) {
	s := newTestStage(t, true)
	entries, err := s.pool.Entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Remove(s.pool.Dir + "/dcos/" + e.Addr.String()); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int {
		entries, err := s.pool.Entries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	for range 2 {
		s.sweep(t)
		s.now = s.now.Add(DefaultGrace)
	}
	if left() != 1 {
		t.Fatal("the record of a living container is gone")
	}
	s.vanish("c")
	s.sweep(t)
	s.now = s.now.Add(DefaultGrace)
	if freed := s.sweep(t); freed != nil || left() != 0 {
		t.Errorf("freed %q, %d entries are left", freed, left())
	}
}

// TestPortsAreUnmappedFirst: the next holder of the address would get what
// comes in by the ports of the last.
func TestPortsAreUnmappedFirst(t *testing.T) {
	s := newStage(t.TempDir())
	for _, id := range []string{"a", "b"} {
		home := &ipam.Home{Netns: s.unshare(path(id)), PortMapper: "/opt/cni/bin/portmap"}
		s.mapped[id] = true
		if _, err := s.pool.Reserve(t.Context(), ownerOf(id), home, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.vanish("a")
	s.blind["unmap"] = true
	s.sweep(t)
	s.now = s.now.Add(DefaultGrace)
	freed, err := s.cleaner.Sweep(t.Context())
	if freed != nil || !errors.Is(err, errBlind) || s.held(t, "a") != 2 {
		t.Errorf("freed %q with ports that can't be unmapped: %v", freed, err)
	}
	clear(s.blind)
	if freed := s.sweep(t); len(freed) != 2 || s.mapped["a"] || !s.mapped["b"] {
		t.Errorf("freed %q:\n%s", freed, s.fakeHost)
	}
}

// TestRun uses the real clock: the address goes, and the trouble is told once.
func TestRun(t *testing.T) {
	s := newTestStage(t, true)
	s.vanish("c")
	s.cleaner = New(Options{
		Dir: s.pool.Dir, System: s.fakeHost, Grace: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	run := func(enough func() bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		done := make(chan struct{})
		go func() { defer close(done); s.cleaner.Run(ctx, time.Millisecond) }()
		for !enough() {
			if ctx.Err() != nil {
				t.Fatal("nothing came of it")
			}
			runtime.Gosched()
		}
		cancel()
		<-done
	}
	s.blind["search"] = true
	run(func() bool { return s.searchCount() > 3 })
	if n := strings.Count(s.log.String(), errBlind.Error()); n != 1 {
		t.Errorf("the trouble is logged %d times: %s", n, s.log)
	}
	clear(s.blind)
	run(func() bool { return s.held(t, "c") == 0 })
}

func TestNoStore(t *testing.T) {
	s := newStage(t.TempDir() + "/absent")
	if freed := s.sweep(t); freed != nil {
		t.Errorf("freed %q", freed)
	}
}
