package registry_test

import (
	"fmt"
	"testing"

	"github.com/dcos/dcos-overlay/coordinator/registry"
)

// TestLoad: an index that is read anew, in pages of some keys, is the one that
// was kept; keys that can't be read, and such as a later version may have, do
// no harm.
func TestLoad(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	for i := range 8 {
		w.claim(i, fmt.Sprint("agent-", i), "dcos", "dcos6")
		w.report(i)
	}
	w.release(3)
	const prefix = "/dcos-overlay/v1/"
	junk := []string{"network2", "epochs/1", "agentsandmore/1", "later/1"}
	broken := []string{"agents/here", "agents/172.17.9.9", "alive/there", "subnets/dcos", "vteps/x"}
	for _, key := range append(junk, broken...) {
		if _, err := w.store.Client.Put(t.Context(), prefix+key, "{"); err != nil {
			t.Fatal(err)
		}
	}
	differs, err := w.Differs(t.Context())
	if differs != "" || err != nil {
		t.Errorf("%s, %v", differs, err)
	}
	r, stop := start(t, w.store, registry.Options{Now: w.clock.Now, Quarantine: quarantine})
	defer stop()
	w.ready(r)
	check(t, "agents", r.Counts().Agents, 7)
	check(t, "those that are alive", r.Counts().Alive, 7)
	sight, err := r.Sight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check(t, "the first of them", brief(*sight.Agents[0].Agent), brief(w.claim(0, "agent-0")))
	check(t, "what has them, and what rests", fmt.Sprint(sight.Overlays[0].Holders, *sight.Overlays[0].Subnets), "7 {7 1 65528}")
	for _, key := range append(junk, broken...) {
		if _, err := w.store.Client.Delete(t.Context(), prefix+key); err != nil {
			t.Fatal(err)
		}
	}
}
