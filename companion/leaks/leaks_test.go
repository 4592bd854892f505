package leaks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

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
		if freed := s.sweep(t); freed != nil || s.searches != 0 {
			t.Errorf("freed %q of a living container after %d searches", freed, s.searches)
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
		if s.searches != 4 {
			t.Errorf("%d searches in 4 sweeps with candidates", s.searches)
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

func TestNoStore(t *testing.T) {
	s := newStage(t.TempDir() + "/absent")
	if freed := s.sweep(t); freed != nil {
		t.Errorf("freed %q", freed)
	}
}

// TestRandomWalk: a living container never loses an address, a dead one does
// in the end, and one without record keeps it.
func TestRandomWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "leaks")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s := newStage(dir)
		living, dead, unknown := map[string]bool{}, map[string]bool{}, map[string]bool{}
		some := func(t *rapid.T) string { return rapid.StringMatching("[a-f]").Draw(t, "container") }
		alive := func(t *rapid.T) string {
			id := some(t)
			if !living[id] {
				t.Skip("it does not live")
			}
			return id
		}
		remove := func(id string) {
			if err := s.pool.Release(context.Background(), ownerOf(id)); err != nil {
				t.Fatal(err)
			}
			delete(living, id)
			delete(dead, id)
			delete(unknown, id)
		}
		// namespaces are those of the living, whatever their handles are by now.
		namespaces := map[string]uint64{}
		vanish := func(id string) {
			delete(s.living, namespaces[id])
			if s.handles[path(id)].Cookie == namespaces[id] {
				delete(s.handles, path(id))
			}
			delete(s.veths, veth(id))
		}
		t.Repeat(map[string]func(*rapid.T){
			"attach": func(t *rapid.T) {
				id := some(t)
				var dup *ipam.DuplicateError
				refused := living[id] || dead[id] || unknown[id]
				if refused {
					if _, err := s.pool.Reserve(context.Background(), ownerOf(id), &ipam.Home{}, nil); !errors.As(err, &dup) {
						t.Fatalf("a second attachment of %s: %v", id, err)
					}
					return
				}
				if err := s.attach(id, rapid.Bool().Draw(t, "ours")); err != nil {
					t.Fatal(err)
				}
				living[id], namespaces[id] = true, s.handles[path(id)].Cookie
			},
			"attach unrecorded": func(t *rapid.T) {
				id := some(t)
				if living[id] || dead[id] || unknown[id] {
					t.Skip("it is attached")
				}
				if _, err := s.pool.Reserve(context.Background(), ownerOf(id), nil, nil); err != nil {
					t.Fatal(err)
				}
				unknown[id] = true
			},
			"detach": func(t *rapid.T) {
				id := some(t)
				if living[id] {
					vanish(id)
				}
				remove(id)
			},
			"vanish": func(t *rapid.T) {
				id := alive(t)
				vanish(id)
				delete(living, id)
				dead[id] = true
			},
			"lose handle": func(t *rapid.T) {
				// Only while a process is there does it live on.
				if id := alive(t); s.living[namespaces[id]] != 0 {
					delete(s.handles, path(id))
				}
			},
			"end processes": func(t *rapid.T) {
				if id := alive(t); s.handles[path(id)].Cookie == namespaces[id] {
					delete(s.living, namespaces[id])
				}
			},
			"reuse path": func(t *rapid.T) {
				if id := some(t); s.handles[path(id)].Cookie == 0 && !living[id] {
					s.unshare(path(id))
				}
			},
			"lose veth": func(t *rapid.T) { delete(s.veths, veth(alive(t))) },
			"pass time": func(t *rapid.T) {
				s.now = s.now.Add(time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second)
			},
			"restart companion": func(*rapid.T) { s.restart() },
			"go blind": func(t *rapid.T) {
				clear(s.blind)
				s.blind[rapid.SampledFrom([]string{"held", "search", "device"}).Draw(t, "look")] = true
			},
			"see again": func(*rapid.T) { clear(s.blind) },
			"sweep": func(t *rapid.T) {
				freed, err := s.cleaner.Sweep(context.Background())
				if err != nil && !errors.Is(err, errBlind) {
					t.Fatal(err)
				}
				for _, text := range freed {
					id := text[len(text)-len("c/eth0")]
					if !dead[string(id)] {
						t.Fatalf("freed %s", text)
					}
				}
				for id := range dead {
					if s.held(t, id) == 0 {
						delete(dead, id)
					}
				}
			},
			"": func(t *rapid.T) {
				for id := range living {
					if s.held(t, id) != 2 {
						t.Fatalf("%s lives, and has not its two addresses:\n%s", id, s.fakeHost)
					}
				}
				for id := range unknown {
					if s.held(t, id) != 2 {
						t.Fatalf("%s is unknown, and lost addresses", id)
					}
				}
			},
		})
		clear(s.blind)
		for range 2 {
			if _, err := s.cleaner.Sweep(context.Background()); err != nil {
				t.Fatal(err)
			}
			s.now = s.now.Add(DefaultGrace)
		}
		for id := range dead {
			if s.held(t, id) != 0 {
				t.Fatalf("%s is dead, and still has addresses:\n%s", id, s.fakeHost)
			}
		}
	})
}
