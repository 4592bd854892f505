package registry_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
)

// TestTwoRegistries has two of them claim, move and release at once on one
// etcd, with hardly enough to lease: nothing may be given twice.
func TestTwoRegistries(t *testing.T) {
	w := newWorld(t, `{"vtep_subnet": "44.128.0.0/20", "vtep_subnet6": "fd01:a::/64", "vtep_mac_oui": "70:B3:D5:00:00:00",
		"overlays": [{"name": "a", "subnet": "9.0.0.0/16", "prefix": 24}, {"name": "b", "subnet6": "fd01:b::/64", "prefix6": 80}]}`, registry.Options{})
	second, stop := start(t, w.store, registry.Options{Now: w.clock.Now, Quarantine: quarantine})
	defer stop()
	w.ready(second)
	const agents = 120
	var wg sync.WaitGroup
	for i := range agents {
		for n, r := range []*registry.Registry{w.Registry, second} {
			wg.Go(func() {
				// Every agent asks both; a third of them move between the two.
				at := i
				if i%3 == 0 {
					at += 1000 * n
				}
				req := api.ClaimRequest{ID: fmt.Sprint("agent-", i), AllOverlays: true}
				if _, err := r.Claim(t.Context(), ip(at), req); err != nil {
					t.Errorf("claim of %s: %v", ip(at), err)
				}
				if i%5 == 0 && n == 1 {
					if err := r.Release(t.Context(), ip(at)); err != nil {
						t.Errorf("release of %s: %v", ip(at), err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, a := range registrytest.Whole(t, w.store.Client) {
		if len(a.Overlays) != 2 {
			t.Errorf("agent %s holds %v", a.IP, a.Overlays)
		}
	}
}

// TestDensePacking: claims at once, of one registry, waste nothing.
func TestDensePacking(t *testing.T) {
	w := newWorld(t, small, registry.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		for range 3 {
			wg.Go(func() { w.claim(i, fmt.Sprint(i), "dcos") })
		}
	}
	wg.Wait()
	if got := len(registrytest.Whole(t, w.store.Client)); got != 4 {
		t.Errorf("%d agents", got)
	}
	check(t, "the next VTEP address", w.claim(9, "z").VTEP.IP.String(), "44.128.0.5/29")
}

func BenchmarkClaim(b *testing.B) {
	w := newWorld(b, `{"vtep_subnet": "44.0.0.0/8", "vtep_mac_oui": "70:B3:D5:00:00:00",
		"overlays": [{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 28}]}`, registry.Options{})
	var mu sync.Mutex
	n := 0
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			i := n
			mu.Unlock()
			w.claim(i, fmt.Sprint(i), "dcos")
		}
	})
}
