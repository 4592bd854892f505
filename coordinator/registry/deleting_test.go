package registry_test

import (
	"fmt"
	"testing"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
)

// TestReadersHearOfDeleting: a reader of the stream, and who claims, is told
// what is being deleted, and what was: an overlay that is simply not there may
// have been lost.
func TestReadersHearOfDeleting(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	r := w.watch(w.Registry, 0)
	told := func(events, want string) {
		t.Helper()
		e := r.expect(events)
		check(t, "told", fmt.Sprint(e.Deleting, e.Deleted), want)
	}
	r.expect("snapshot network:3 synced")
	w.claim(1, "a", "dcos")
	r.expect("set:172.17.0.1")
	w.remove("dcos", false)
	told("network:3", "[dcos] []")
	resp, err := w.Claim(t.Context(), ip(1), api.ClaimRequest{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "who claims is told", fmt.Sprint(resp.Deleting), "[dcos]")
	dcos, err := w.Overlay(t.Context(), "dcos")
	if err != nil {
		t.Fatal(err)
	}
	w.put(switched(dcos.Overlay, true))
	told("network:3", "[] []")
	w.remove("dcos", false)
	told("network:3", "[dcos] []")
	if err := w.ReleaseOverlay(t.Context(), ip(1), "dcos"); err != nil {
		t.Fatal(err)
	}
	r.expect("set:172.17.0.1")
	told("network:2", "[] [dcos]")
	again := w.watch(w.Registry, 0)
	again.expect("snapshot")
	check(t, "a snapshot says", fmt.Sprint(again.expect("network:2").Deleted), "[dcos]")
	w.put(switched(dcos.Overlay, true))
	told("network:3", "[] []")
}
