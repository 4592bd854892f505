package registry_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// fixing has an overlay of eight subnets, of which the second and third are
// for fixed addresses.
const fixing = `{
	"vtep_subnet": "44.128.0.0/20", "vtep_subnet6": "fd01:a::/64", "vtep_mac_oui": "70:B3:D5:00:00:00",
	"overlays": [
		{"name": "o", "subnet": "9.0.0.0/21", "prefix": 24, "subnet6": "fd01:b::/64", "prefix6": 80,
		 "static_subnet": "9.0.2.0/23", "static_subnet6": "fd01:b:0:0:1::/80", "static_takeover": 2},
		{"name": "plain", "subnet": "9.1.0.0/16", "prefix": 24}
	]
}`

func (w *world) fix(i int, id, addr, container string, labels ...string) (api.ClaimResponse, error) {
	return w.ClaimAddress(w.t.Context(), ip(i), "o", netip.MustParseAddr(addr), api.AddressRequest{
		ID: id, Container: container, Interface: "eth0", Labels: labels,
	})
}

func (w *world) fixed(i int, id, addr, container string, labels ...string) lease.Agent {
	w.t.Helper()
	resp, err := w.fix(i, id, addr, container, labels...)
	if err != nil {
		w.t.Fatalf("claim of %s for %s: %v", addr, container, err)
	}
	return resp.Agent
}

// addresses are who holds which, by the records.
func addresses(a lease.Agent) string {
	var out []string
	for _, held := range a.Overlay("o").Addresses {
		out = append(out, fmt.Sprint(held.IP, "=", held.Container))
	}
	return strings.Join(out, " ")
}

func (w *world) record(i int) string {
	w.t.Helper()
	a, err := w.Agent(w.t.Context(), ip(i))
	if err != nil {
		w.t.Fatal(err)
	}
	return addresses(*a)
}

func (w *world) beat(i int, id string) {
	w.t.Helper()
	if err := w.Status(w.t.Context(), ip(i), api.StatusRequest{ID: id}); err != nil {
		w.t.Fatal(err)
	}
}

func TestStaticSubnetIsLeasedToNobody(t *testing.T) {
	w := newWorld(t, fixing, registry.Options{})
	var got []string
	for i := range 6 {
		got = append(got, fmt.Sprint(w.claim(i+1, fmt.Sprint("id", i), "o").Overlays[0].AllSubnets()))
	}
	check(t, "the subnets", strings.Join(got, " "), "[9.0.0.0/24 fd01:b::/80] [9.0.1.0/24 fd01:b:0:0:2::/80] [9.0.4.0/24 fd01:b:0:0:3::/80]"+
		" [9.0.5.0/24 fd01:b:0:0:4::/80] [9.0.6.0/24 fd01:b:0:0:5::/80] [9.0.7.0/24 fd01:b:0:0:6::/80]")
	_, err := w.Claim(t.Context(), ip(9), api.ClaimRequest{ID: "late", Overlays: []string{"o"}})
	wantCode(t, err, api.CodeExhausted, "overlay o: no free /24 of 9.0.0.0/21: 6 leased, none resting")
	o, err := w.Overlay(t.Context(), "o")
	if err != nil || o.Subnets.Free != 0 || o.Subnets.Leased != 6 {
		t.Errorf("the overlay is %+v, %v", o.Subnets, err)
	}
}

func TestFixedAddress(t *testing.T) {
	w := newWorld(t, fixing, registry.Options{})
	_, err := w.fix(1, "a", "9.0.2.5", "c1")
	wantCode(t, err, api.CodeNotFound, "there is no agent 172.17.0.1 with id a: claim a lease first")
	w.claim(1, "a", "plain")
	_, err = w.fix(1, "a", "9.0.2.5", "c1")
	wantCode(t, err, api.CodeConflict, "agent 172.17.0.1 holds no subnet of overlay o: claim that first")
	w.claim(1, "a", "o")
	w.claim(2, "b", "o")
	w.beat(1, "a")
	for _, addr := range []string{"9.0.0.5", "9.0.4.1", "10.0.0.1", "fd01:b::5"} {
		_, err = w.fix(1, "a", addr, "c1")
		wantCode(t, err, api.CodeConflict, "address "+addr+" can't be given on agent 172.17.0.1: fixed addresses of overlay o are of [9.0.2.0/23 fd01:b:0:0:1::/80], and others of the agent's own subnets [9.0.0.0/24 fd01:b::/80]")
	}
	r := w.watch(w.Registry, w.Counts().Revision)
	r.expect("synced")
	check(t, "claimed", addresses(w.fixed(1, "a", "9.0.2.5", "c1")), "9.0.2.5=c1")
	r.expect("set:172.17.0.1")
	rev := w.Counts().Revision
	check(t, "claimed again", addresses(w.fixed(1, "a", "9.0.2.5", "c1")), "9.0.2.5=c1")
	check(t, "the revision after the same again", w.Counts().Revision, rev)
	check(t, "one of IPv6", addresses(w.fixed(1, "a", "fd01:b:0:0:1::7", "c1")), "9.0.2.5=c1 fd01:b::1:0:0:7=c1")
	_, err = w.fix(2, "b", "9.0.2.5", "c2")
	wantCode(t, err, api.CodeConflict, "address 9.0.2.5 of overlay o is taken: container c1 (eth0) on agent 172.17.0.1 has it, which is alive: the address is free when that container ends, or 2s after the agent has fallen silent")
	check(t, "another container of the agent", addresses(w.fixed(1, "a", "9.0.2.5", "c3")), "9.0.2.5=c3 fd01:b::1:0:0:7=c1")

	// A DEL that comes late.
	for _, late := range []struct {
		agent     int
		container string
	}{{1, "c1"}, {2, "c3"}} {
		if err := w.ReleaseAddress(t.Context(), ip(late.agent), "o", netip.MustParseAddr("9.0.2.5"), late.container, "eth0"); err != nil {
			t.Error(err)
		}
	}
	check(t, "after late releases", w.record(1), "9.0.2.5=c3 fd01:b::1:0:0:7=c1")
	if err := w.ReleaseAddress(t.Context(), ip(1), "o", netip.MustParseAddr("9.0.2.5"), "c3", "eth0"); err != nil {
		t.Error(err)
	}
	check(t, "after the release", w.record(1), "fd01:b::1:0:0:7=c1")
	check(t, "claimed by another agent", addresses(w.fixed(2, "b", "9.0.2.5", "c2")), "9.0.2.5=c2")

	// An agent that moves keeps it; one that is released does not.
	check(t, "moved", addresses(w.claim(3, "b")), "9.0.2.5=c2")
	all, err := w.Addresses(t.Context(), "o")
	if err != nil || len(all) != 2 || all[0].Agent != ip(3) || all[0].Container != "c2" {
		t.Errorf("the addresses are %+v, %v", all, err)
	}
	w.release(3)
	check(t, "free again", addresses(w.fixed(1, "a", "9.0.2.5", "c4")), "9.0.2.5=c4 fd01:b::1:0:0:7=c1")
	if err := w.ReleaseOverlay(t.Context(), ip(1), "o"); err != nil {
		t.Fatal(err)
	}
	if all, err := w.Addresses(t.Context(), "o"); err != nil || len(all) != 0 {
		t.Errorf("the addresses are %+v, %v", all, err)
	}
}

func TestFixedAddressGoesToOne(t *testing.T) {
	w := newWorld(t, fixing, registry.Options{})
	const agents = 5
	for i := range agents {
		w.claim(i+1, fmt.Sprint("id", i), "o")
		w.beat(i+1, fmt.Sprint("id", i))
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	got := 0
	for i := range agents {
		group.Go(func() {
			_, err := w.fix(i+1, fmt.Sprint("id", i), "9.0.2.9", "c")
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got++
			} else if !strings.Contains(err.Error(), "is taken: container c (eth0) on agent 172.17.0.") {
				t.Error(err)
			}
		})
	}
	group.Wait()
	check(t, "how many got the address", got, 1)
}

func TestTakeover(t *testing.T) {
	w := newWorld(t, fixing, registry.Options{AliveTTL: time.Second})
	for i, id := range []string{"a", "b"} {
		w.claim(i+1, id, "o")
		w.beat(i+1, id)
	}
	w.fixed(1, "a", "9.0.2.5", "c1")
	_, err := w.fix(2, "b", "9.0.2.5", "c2")
	if err == nil || !strings.Contains(err.Error(), "which is alive") {
		t.Errorf("while its holder is alive: %v", err)
	}
	w.until("the holder is known to be silent", func() bool {
		_, err = w.fix(2, "b", "9.0.2.5", "c2")
		return err != nil && strings.Contains(err.Error(), "which is silent")
	})
	// It has claimed just now.
	wantCode(t, err, api.CodeConflict, "address 9.0.2.5 of overlay o is taken: container c1 (eth0) on agent 172.17.0.1 has it, which is silent: the address can be taken over in 2s")
	w.clock.pass(1500 * time.Millisecond)
	_, err = w.fix(2, "b", "9.0.2.5", "c2")
	if err == nil || !strings.Contains(err.Error(), "which is silent: the address can be taken over in 1s") && !strings.Contains(err.Error(), "in 0s") {
		t.Errorf("after a second and a half: %v", err)
	}
	r := w.watch(w.Registry, w.Counts().Revision)
	r.expect("synced")
	var taken api.ClaimResponse
	w.until("it can be taken over", func() bool {
		w.clock.pass(100 * time.Millisecond)
		taken, err = w.fix(2, "b", "9.0.2.5", "c2")
		return err == nil
	})
	check(t, "taken over", addresses(taken.Agent), "9.0.2.5=c2")
	// It goes before it comes.
	r.expect("set:172.17.0.1 set:172.17.0.2")
	check(t, "the record of who lost it", w.record(1), "")
	if err := w.ReleaseAddress(t.Context(), ip(1), "o", netip.MustParseAddr("9.0.2.5"), "c1", "eth0"); err != nil {
		t.Error(err)
	}
	check(t, "after the loser's release", w.record(2), "9.0.2.5=c2")
}

// TestNoTakeoverAfterAStart: while no coordinator ran, nobody could report.
func TestNoTakeoverAfterAStart(t *testing.T) {
	w := newWorld(t, fixing, registry.Options{AliveTTL: 2 * time.Second})
	w.claim(1, "a", "o")
	w.claim(2, "b", "o")
	w.fixed(1, "a", "9.0.2.5", "c1")
	_, err := w.fix(2, "b", "9.0.2.5", "c2")
	wantCode(t, err, api.CodeConflict, "address 9.0.2.5 of overlay o is taken: container c1 (eth0) on agent 172.17.0.1 has it, and this coordinator does not know for 2s yet whether that is alive: try again")
	w.clock.pass(time.Minute)
	w.until("it knows", func() bool {
		_, err = w.fix(2, "b", "9.0.2.5", "c2")
		return err == nil
	})
}

func TestReservation(t *testing.T) {
	w := newWorld(t, fixing, registry.Options{})
	w.claim(1, "a", "o")
	w.beat(1, "a")
	addr := netip.MustParseAddr("9.0.2.5")
	_, err := w.PutReservation(t.Context(), "o", netip.MustParseAddr("9.0.0.5"), "db")
	wantCode(t, err, api.CodeConflict, "address 9.0.0.5 can't be reserved: fixed addresses of overlay o are of [9.0.2.0/23 fd01:b:0:0:1::/80]")
	_, err = w.PutReservation(t.Context(), "plain", netip.MustParseAddr("9.1.0.5"), "db")
	wantCode(t, err, api.CodeConflict, "address 9.1.0.5 can't be reserved: fixed addresses of overlay plain are of none, for it has no static_subnet")
	for range 2 {
		if _, err := w.PutReservation(t.Context(), "o", addr, "role=db"); err != nil {
			t.Fatal(err)
		}
	}
	for _, labels := range [][]string{nil, {"role=web", "db"}, {"role"}} {
		_, err = w.fix(1, "a", "9.0.2.5", "c1", labels...)
		wantCode(t, err, api.CodeConflict, `address 9.0.2.5 of overlay o is reserved for containers with the label "role=db": give container c1 that label, or ask for another address`)
	}
	w.fixed(1, "a", "9.0.2.5", "c1", "x", "role=db")
	kept, err := w.Reservations(t.Context(), "o")
	if err != nil || len(kept) != 1 || kept[0].Address != addr || kept[0].Holder == nil || kept[0].Holder.Label != "role=db" {
		t.Errorf("the reservations are %+v, %v", kept, err)
	}
	if _, err := w.PutReservation(t.Context(), "o", addr, "role"); err != nil {
		t.Fatal(err)
	}
	w.fixed(1, "a", "9.0.2.5", "c2", "role=web") // a key alone is for any value
	for range 2 {
		if err := w.DeleteReservation(t.Context(), "o", addr); err != nil {
			t.Fatal(err)
		}
	}
	w.fixed(1, "a", "9.0.2.5", "c3")
	if _, err := w.PutReservation(t.Context(), "o", addr, "again"); err != nil {
		t.Fatal(err)
	}
	w.remove("o", true)
	w.gone("o")
	w.put(overlay("o", "9.0.0.0/21", 24))
	if kept, err := w.Reservations(t.Context(), "o"); err != nil || len(kept) != 0 {
		t.Errorf("reservations outlive their overlay: %+v, %v", kept, err)
	}
}

func TestStaticSubnetOfARunningOverlay(t *testing.T) {
	w := newWorld(t, fixing, registry.Options{})
	plain := overlay("plain", "9.1.0.0/16", 24)
	static := func(p string) network.Overlay {
		o := plain
		o.StaticSubnet = netip.MustParsePrefix(p)
		return o
	}
	w.claim(1, "a", "plain")
	w.refused(static("9.1.0.0/24"), api.CodeConflict, "overlay plain: static_subnet can't be where agents hold subnets: 172.17.0.1")
	w.refused(static("9.2.0.0/24"), api.CodeInvalid, "static_subnet: 9.2.0.0/24 is not a part of subnet (9.1.0.0/16)")
	w.refused(static("9.1.1.0/25"), api.CodeInvalid, "static_subnet: 9.1.1.0/25 is less than one agent's subnet: its length is at most the 24 of prefix")
	w.put(static("9.1.1.0/24"))
	check(t, "the next subnet", brief(w.claim(2, "b", "plain")), "172.17.0.2 44.128.0.2/20 fd01:a::2/64 plain[9.1.2.0/24]")
	if _, err := w.PutReservation(t.Context(), "plain", netip.MustParseAddr("9.1.1.7"), "x"); err != nil {
		t.Fatal(err)
	}
	w.refused(plain, api.CodeConflict, "overlay plain: static_subnet can't be without 9.1.1.7 while that is held or reserved")
	if err := w.DeleteReservation(t.Context(), "plain", netip.MustParseAddr("9.1.1.7")); err != nil {
		t.Fatal(err)
	}
	w.put(plain)
	check(t, "the next subnet without static_subnet", brief(w.claim(3, "c", "plain")), "172.17.0.3 44.128.0.3/20 fd01:a::3/64 plain[9.1.1.0/24]")
	w.release(3)
	w.refused(static("9.1.1.0/24"), api.CodeConflict, "overlay plain: 9.1.1.0/24, which would be of static_subnet, was released lately and rests until 2026-01-01T00:10:00Z: try again then")
	w.clock.pass(quarantine)
	w.put(static("9.1.1.0/24"))
}

// TestStaleTakeover: an agent that has reported meanwhile keeps its address,
// also where the one who is asked has not heard of it.
func TestStaleTakeover(t *testing.T) {
	opts := registry.Options{AliveTTL: time.Second}
	w := newWorld(t, fixing, opts)
	victim, watcher := w.breakableWith(opts)
	w.claim(1, "a", "o")
	w.claim(2, "b", "o")
	w.fixed(1, "a", "9.0.2.5", "c1")
	w.fixed(1, "a", "9.0.2.6", "c2")
	take := func(addr string) error {
		_, err := victim.ClaimAddress(t.Context(), ip(2), "o", netip.MustParseAddr(addr), api.AddressRequest{ID: "b", Container: "c3", Interface: "eth0"})
		return err
	}
	w.until("the victim takes the agent for silent", func() bool {
		w.clock.pass(time.Second)
		return take("9.0.2.6") == nil
	})
	close(watcher.paused)
	for len(watcher.committed) > 0 {
		<-watcher.committed
	}
	w.beat(1, "a")
	err := watcher.afterFirstTry(func() error { return take("9.0.2.5") })
	if err == nil || !strings.Contains(err.Error(), "container c1 (eth0) on agent 172.17.0.1 has it, ") {
		t.Errorf("got %v", err)
	}
	check(t, "the record", w.record(1), "9.0.2.5=c1")
}

// TestStaleStaticSubnet: one that was leased meanwhile is not made static.
func TestStaleStaticSubnet(t *testing.T) {
	w := newWorld(t, fixing, registry.Options{})
	victim, watcher := w.breakable()
	w.claim(1, "a", "o")
	w.until("the victim knows the agent", func() bool { return victim.Counts().Agents == 1 })
	close(watcher.paused)
	w.claim(1, "a", "plain")
	o := overlay("plain", "9.1.0.0/16", 24)
	o.StaticSubnet = netip.MustParsePrefix("9.1.0.0/24")
	err := watcher.afterFirstTry(func() error {
		_, err := victim.PutOverlay(t.Context(), o)
		return err
	})
	wantCode(t, err, api.CodeConflict, "overlay plain: static_subnet can't be where agents hold subnets: 172.17.0.1")
}
