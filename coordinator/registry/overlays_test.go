package registry_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

func overlay(name, subnet string, prefix int) network.Overlay {
	return network.Overlay{Name: name, Subnet: netip.MustParsePrefix(subnet), Prefix: prefix}
}

func switched(o network.Overlay, on bool) network.Overlay {
	o.Enabled = &on
	return o
}

func (w *world) put(o network.Overlay) (created bool) {
	w.t.Helper()
	created, err := w.PutOverlay(w.t.Context(), o)
	if err != nil {
		w.t.Fatalf("put overlay %s: %v", o.Name, err)
	}
	return created
}

// refused puts an overlay that must be refused.
func (w *world) refused(o network.Overlay, code api.Code, message string) {
	w.t.Helper()
	_, err := w.PutOverlay(w.t.Context(), o)
	wantCode(w.t, err, code, message)
}

func (w *world) remove(name string, force bool) (gone bool) {
	w.t.Helper()
	gone, err := w.DeleteOverlay(w.t.Context(), name, force)
	if err != nil {
		w.t.Fatalf("delete overlay %s: %v", name, err)
	}
	return gone
}

func (w *world) gone(name string) {
	w.t.Helper()
	w.until("overlay "+name+" is gone", func() bool {
		_, err := w.Overlay(w.t.Context(), name)
		return err != nil
	})
}

// TestOverlayLife takes an overlay from its creation to its end and back.
func TestOverlayLife(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	r := w.watch(w.Registry, 0)
	r.expect("snapshot network:3 synced")
	web := overlay("web", "10.20.0.0/16", 26)
	check(t, "created", w.put(web), true)
	r.expect("network:4")
	rev := w.Counts().Revision
	check(t, "created again", w.put(switched(web, true)), false)
	check(t, "revision after the same again", w.Counts().Revision, rev)
	check(t, "claim", brief(w.claim(1, "a", "web", "dcos")), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] web[10.20.0.0/26]")
	r.expect("set:172.17.0.1")

	w.put(switched(web, false))
	if e := r.expect("network:4"); e.Network.Overlays[3].IsEnabled() {
		t.Error("readers are not told that the overlay is disabled")
	}
	_, err := w.Claim(t.Context(), ip(2), api.ClaimRequest{ID: "b", Overlays: []string{"web"}})
	wantCode(t, err, api.CodeDisabled, "overlay web is disabled: nothing is leased from it until it is enabled")
	check(t, "who holds of it keeps it", brief(w.claim(1, "a", "web")), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] web[10.20.0.0/26]")
	w.put(web)
	check(t, "claim when enabled again", brief(w.claim(2, "b", "web")), "172.17.0.2 44.128.0.2/20 fd01:a::2/64 web[10.20.0.64/26]")
	r.expect("network:4 set:172.17.0.2")
	w.refused(overlay("web", "10.20.0.0/16", 25), api.CodeConflict,
		"overlay web: its subnets and prefixes can't change while agents hold subnets of it: 172.17.0.1, 172.17.0.2")

	check(t, "gone at once", w.remove("web", false), false)
	r.expect("network:4")
	got, err := w.Overlay(t.Context(), "web")
	if err != nil || !got.Deleting || got.IsEnabled() || got.Holders != 2 {
		t.Errorf("while it drains it is %+v, %v", got, err)
	}
	check(t, "gone on asking again", w.remove("web", false), false)
	_, err = w.Claim(t.Context(), ip(3), api.ClaimRequest{ID: "c", Overlays: []string{"web"}})
	wantCode(t, err, api.CodeDisabled, "overlay web is being deleted: nothing is leased from it unless a PUT of /v1/overlays/web brings it back")
	w.put(web)
	check(t, "a PUT ends the drain", brief(w.claim(3, "c", "web")), "172.17.0.3 44.128.0.3/20 fd01:a::3/64 web[10.20.0.128/26]")
	w.remove("web", false)
	r.expect("network:4 set:172.17.0.3 network:4")
	for range 2 {
		if err := w.ReleaseOverlay(t.Context(), ip(1), "web"); err != nil {
			t.Fatal(err)
		}
	}
	r.expect("set:172.17.0.1")
	check(t, "the rest stays", brief(w.claim(1, "a")), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24]")
	w.release(2)
	if err := w.ReleaseOverlay(t.Context(), ip(3), "web"); err != nil {
		t.Fatal(err)
	}
	r.expect("delete:172.17.0.2 set:172.17.0.3 network:3")
	w.gone("web")
	check(t, "gone on asking later", w.remove("web", false), true)

	// It does not come back with the file, but by a PUT.
	differences, err := w.Seed(t.Context(), parse(t, strings.Replace(sample, "}\n  ]}", `}, {"name": "web", "subnet": "10.20.0.0/16", "prefix": 26}]}`, 1)))
	if err != nil || len(differences) != 1 || differences[0] != "overlay web was deleted at 2026-01-01T00:00:00Z, and the configuration does not bring it back: PUT /v1/overlays/web does" {
		t.Errorf("differences %q, %v", differences, err)
	}
	w.put(web)
	if resp, err := w.store.Client.Get(t.Context(), "/dcos-overlay/v1/deleted-overlays/web"); err != nil || len(resp.Kvs) != 0 {
		t.Errorf("the overlay is there, and still noted as deleted: %v, %v", resp, err)
	}
	check(t, "what rests is not given out", brief(w.claim(4, "d", "web")), "172.17.0.4 44.128.0.4/20 fd01:a::4/64 web[10.20.0.192/26]")
	if differences, err = w.Seed(t.Context(), parse(t, sample)); err != nil || len(differences) != 1 || differences[0] != "overlay web is stored and not in the configuration" {
		t.Errorf("differences %q, %v", differences, err)
	}
	_, err = w.DeleteOverlay(t.Context(), "nope", true)
	wantCode(t, err, api.CodeNotFound, `there is no overlay "nope": /v1/overlays lists them`)
}

func TestLastOverlay(t *testing.T) {
	w := newWorld(t, small, registry.Options{})
	check(t, "gone", w.remove("dcos", false), true)
	check(t, "agents still get a VTEP", brief(w.claim(1, "a")), "172.17.0.1 44.128.0.1/29")
	w.put(overlay("dcos", "9.0.0.0/22", 24))
	check(t, "claim", brief(w.claim(1, "a", "dcos")), "172.17.0.1 44.128.0.1/29 dcos[9.0.0.0/24]")
}

// TestOverlayForce takes an overlay from more agents than one transaction has
// room for, while they claim.
func TestOverlayForce(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	const agents = 150
	for i := range agents {
		w.claim(i, fmt.Sprint(i), "dcos", "dcos6")
	}
	stop := make(chan struct{})
	claiming := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				claiming <- nil
				return
			default:
			}
			if _, err := w.Claim(t.Context(), ip(i%agents), api.ClaimRequest{ID: fmt.Sprint(i % agents), AllOverlays: true}); err != nil {
				claiming <- err
				return
			}
		}
	}()
	check(t, "gone", w.remove("dcos", true), true)
	close(stop)
	if err := <-claiming; err != nil {
		t.Error(err)
	}
	for _, a := range registrytest.Whole(t, w.store.Client) {
		if len(a.Overlays) != 1 || a.Overlays[0].Name != "dcos6" {
			t.Fatalf("agent %s holds %+v", a.IP, a.Overlays)
		}
	}
}

func TestOverlayRefused(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(1, "a", "dcos")
	err := w.Status(t.Context(), ip(1), api.StatusRequest{HostRoutes: []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.1.2.3/24"), netip.MustParsePrefix("fd02::/64")}})
	if err != nil {
		t.Fatal(err)
	}
	w.refused(overlay("x", "9.1.0.0/16", 24), api.CodeConflict, "overlay x.subnet: 9.1.0.0/16 overlaps overlay dcos.subnet (9.0.0.0/8)")
	w.refused(overlay("x", "44.128.8.0/24", 28), api.CodeInvalid, "subnet: 44.128.8.0/24 overlaps vtep_subnet (44.128.0.0/20)")
	w.refused(overlay("x", "10.1.0.0/16", 24), api.CodeConflict, "overlay x: hosts route some of its addresses by themselves: 10.1.2.0/24 at 172.17.0.1")
	w.refused(network.Overlay{Name: "x", Subnet6: netip.MustParsePrefix("fd02::/48"), Prefix6: 80}, api.CodeConflict,
		"overlay x: hosts route some of its addresses by themselves: fd02::/64 at 172.17.0.1")
	w.refused(overlay("x", "10.1.0.1/16", 24), api.CodeInvalid, "subnet: 10.1.0.1/16 has bits set after its first 16; write 10.1.0.0/16")
	// Made while it is off, it is judged when it is switched on.
	w.put(switched(overlay("x", "10.1.0.0/16", 24), false))
	w.refused(overlay("x", "10.1.0.0/16", 24), api.CodeConflict, "overlay x: hosts route some of its addresses by themselves: 10.1.2.0/24 at 172.17.0.1")
	w.put(switched(overlay("x", "10.2.0.0/16", 24), true))
	check(t, "an overlay nobody holds of is moved", brief(w.claim(1, "a", "x")), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] x[10.2.0.0/24]")
}

// TestQuarantineOutlivesTheOverlay: what a deleted overlay had leased is not
// given to anybody before it has rested, under whatever name or length.
func TestQuarantineOutlivesTheOverlay(t *testing.T) {
	w := newWorld(t, small, registry.Options{AliveTTL: time.Second})
	w.claim(1, "a", "dcos")
	check(t, "gone", w.remove("dcos", true), true)
	const until = " was released lately and rests until 2026-01-01T00:10:00Z: try again then"
	w.refused(overlay("other", "9.0.0.0/16", 24), api.CodeConflict, "overlay other: 9.0.0.0/24, which overlay dcos had,"+until)
	w.refused(overlay("dcos", "9.0.0.0/22", 26), api.CodeConflict, "overlay dcos: 9.0.0.0/24, which overlay dcos had,"+until)
	w.put(overlay("beside", "9.0.4.0/22", 24))
	w.clock.pass(quarantine)
	w.put(overlay("other", "9.0.0.0/22", 24))
	check(t, "claim", brief(w.claim(2, "b", "other")), "172.17.0.2 44.128.0.2/29 other[9.0.0.0/24]")
	w.until("what rests of the deleted overlay is forgotten", func() bool {
		resp, err := w.store.Client.Get(t.Context(), "/dcos-overlay/v1/released/subnets/dcos/9.0.0.0/24")
		return err == nil && len(resp.Kvs) == 0
	})
}

// TestStaleOverlayChange: a registry that has not heard of a claim must not
// change the overlay under it.
func TestStaleOverlayChange(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.until("the victim is ready", func() bool { return victim.Ready(t.Context()) == nil })
	close(watcher.paused)
	w.claim(1, "a", "dcos")
	err := watcher.afterFirstTry(func() error {
		_, err := victim.PutOverlay(t.Context(), overlay("dcos", "9.0.0.0/8", 26))
		return err
	})
	wantCode(t, err, api.CodeConflict, "overlay dcos: its subnets and prefixes can't change while agents hold subnets of it: 172.17.0.1")
}

// TestStaleForce: a registry that has not heard of a claim takes the overlay
// from that agent all the same.
func TestStaleForce(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.until("the victim is ready", func() bool { return victim.Ready(t.Context()) == nil })
	close(watcher.paused)
	w.claim(1, "a", "dcos", "dcos6")
	gone := false
	err := watcher.afterFirstTry(func() (err error) {
		gone, err = victim.DeleteOverlay(t.Context(), "dcos", true)
		return err
	})
	if err != nil || !gone {
		t.Fatalf("gone %v, %v", gone, err)
	}
	check(t, "record", brief(registrytest.Whole(t, w.store.Client)[ip(1)]), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos6[fd01:b::/80]")
}

// TestStatesOfAStrippedAgent: what an agent reports of an overlay that was
// taken from it meanwhile tells it that it no longer has it.
func TestStatesOfAStrippedAgent(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(1, "a", "dcos")
	w.remove("dcos", true)
	wantCode(t, w.Status(t.Context(), ip(1), report("dcos", lease.StatusOK, "", 0)), api.CodeInvalid,
		`agent 172.17.0.1 reports on overlays that it holds nothing of: "dcos"`)
}
