package leaks

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/ipam"
)

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
		// Skip here is rapid's: this step of the walk is not to be taken.
		alive := func(step *rapid.T) string {
			id := some(step)
			if !living[id] {
				step.Skip("it does not live")
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
			"attach unrecorded": func(step *rapid.T) {
				id := some(step)
				if living[id] || dead[id] || unknown[id] {
					step.Skip("it is attached")
				}
				if _, err := s.pool.Reserve(context.Background(), ownerOf(id), nil, nil); err != nil {
					step.Fatal(err)
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
