package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/lease"
)

// TestTally: in whatever order keys come and go, the tree and the counts are
// what one would find by looking at every key.
func TestTally(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex()
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		agent := func(overlays ...string) lease.Agent {
			var a lease.Agent
			for _, name := range overlays {
				a.Overlays = append(a.Overlays, lease.Overlay{Name: name})
			}
			return a
		}
		values := map[string][]any{
			dirAgents: {agent(), agent("dcos"), agent("dcos", "web")},
			dirAlive:  {storedAlive{}, storedAlive{HostRoutes: []netip.Prefix{netip.MustParsePrefix("9.0.0.0/8")}}},
			dirSilent: {storedTime{Since: at}},
			dirMesos:  {storedMesos{ID: "a"}, storedMesos{ID: "a", Gone: at}},
		}
		t.Repeat(map[string]func(*rapid.T){
			"key": func(t *rapid.T) {
				dir := rapid.SampledFrom([]string{dirAgents, dirAlive, dirSilent, dirMesos}).Draw(t, "directory")
				kv := keyValue{key: fmt.Sprintf("%s10.0.0.%d", dir, rapid.IntRange(1, 4).Draw(t, "agent")), rev: 1}
				if !rapid.Bool().Draw(t, "gone") {
					b, err := json.Marshal(rapid.SampledFrom(values[dir]).Draw(t, "value"))
					if err != nil {
						t.Fatal(err)
					}
					kv.value = b
				}
				if _, err := x.apply(kv); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				want, seen := newTally(), map[netip.Addr]*agentEntry{}
				for ip, a := range x.agents {
					if _, alive := x.alive[ip]; !alive {
						want.still[ip] = struct{}{}
					}
					if !x.mesos[ip].Gone.IsZero() {
						want.gone++
					}
					for _, o := range a.Overlays {
						want.holders[o.Name]++
					}
				}
				for s := range ascend(x.byIP, netip.Addr{}) {
					seen[s.IP] = s.agentEntry
					alive, ok := x.alive[s.IP]
					since := x.silent[s.IP].since
					if ok {
						since = time.Time{}
					}
					if s.alive != ok || s.report != alive.value || !s.silentSince.Equal(since) || s.mesos != x.mesos[s.IP] {
						t.Fatalf("agent %s stands as %+v", s.IP, s)
					}
				}
				if !reflect.DeepEqual(x.tally, want) || !maps.Equal(seen, x.agents) {
					t.Fatalf("the tally is %+v, want %+v; the tree has %v", x.tally, want, seen)
				}
			},
		})
	})
}
