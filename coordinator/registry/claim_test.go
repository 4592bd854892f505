package registry_test

import (
	"slices"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

func TestClaim(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	check(t, "VTEP only", brief(w.claim(1, "a")), "172.17.0.1 44.128.0.1/20 fd01:a::1/64")
	a := w.claim(1, "a", "dcos6")
	check(t, "one overlay", brief(a), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos6[fd01:b::/80]")
	check(t, "MAC", a.VTEP.MAC.String(), "70:b3:d5:80:00:01")
	check(t, "state", a.Overlays[0].State, lease.State{Status: lease.StatusConfiguring})
	const all = "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80]"
	check(t, "another, in the configured order", brief(w.claim(1, "a", "dcos", "dcos")), all)
	check(t, "again, for less", brief(w.claim(1, "a")), all)
	check(t, "the next agent", brief(w.claim(2, "b", "dcos")), "172.17.0.2 44.128.0.2/20 fd01:a::2/64 dcos[9.0.1.0/24]")

	resp, err := w.Claim(t.Context(), ip(3), api.ClaimRequest{ID: "c", AllOverlays: true})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "all overlays that are enabled", brief(resp.Agent),
		"172.17.0.3 44.128.0.3/20 fd01:a::3/64 dcos[9.0.2.0/24] dcos6[fd01:b:0:0:1::/80]")
	check(t, "the network's overlays", len(resp.Network.Overlays), 3)
	again, err := w.Claim(t.Context(), ip(3), api.ClaimRequest{ID: "c", AllOverlays: true})
	if err != nil || again.Revision != resp.Revision {
		t.Errorf("a repeated claim wrote something: revision %d, then %d (%v)", resp.Revision, again.Revision, err)
	}
}

func TestClaimRefused(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	noSubnet, noIPv6, badMTU := lease.DefaultNetworkConfig(), lease.DefaultNetworkConfig(), lease.DefaultNetworkConfig()
	noSubnet.AllocateSubnet, noIPv6.EnableIPv6, badMTU.OverlayMTU = false, false, 67
	for _, test := range []struct {
		name    string
		req     api.ClaimRequest
		code    api.Code
		message string
	}{
		{"unknown", api.ClaimRequest{ID: "a", Overlays: []string{"dcos", "nope"}}, api.CodeNotFound,
			`there is no overlay "nope": there are dcos, dcos6, off`},
		{"disabled", api.ClaimRequest{ID: "a", Overlays: []string{"off"}}, api.CodeDisabled,
			"overlay off is disabled: nothing is leased from it until it is enabled"},
		{"no subnets wanted", api.ClaimRequest{ID: "a", Overlays: []string{"dcos"}, NetworkConfig: &noSubnet}, api.CodeConflict,
			"agent 172.17.0.1 asks for a subnet of overlay dcos, but its network_config has allocate_subnet false"},
		{"IPv6 only", api.ClaimRequest{ID: "a", Overlays: []string{"dcos6"}, NetworkConfig: &noIPv6}, api.CodeConflict,
			"overlay dcos6 has IPv6 only, but the network_config of agent 172.17.0.1 has enable_ipv6 false"},
		{"no id", api.ClaimRequest{}, api.CodeInvalid,
			`the agent's id "" must be 1 to 128 letters, digits or any of . _ : -`},
		{"id with a slash", api.ClaimRequest{ID: "a/b"}, api.CodeInvalid,
			`the agent's id "a/b" must be 1 to 128 letters, digits or any of . _ : -`},
		{"MTU", api.ClaimRequest{ID: "a", NetworkConfig: &badMTU}, api.CodeInvalid,
			"overlay_mtu is 67: it must be 0 or from 68 to 65535"},
		{"too many names", api.ClaimRequest{ID: "a", Overlays: slices.Repeat([]string{"dcos"}, 1025)}, api.CodeInvalid,
			"the claim names 1025 overlays: at most 1024 are taken; all_overlays asks for every one"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := w.Claim(t.Context(), ip(1), test.req)
			wantCode(t, err, test.code, test.message)
		})
	}
	check(t, "agents after refused claims", len(registrytest.Whole(t, w.store.Client)), 0)
	check(t, "what was held for them is free", brief(w.claim(1, "a", "dcos", "dcos6")),
		"172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80]")
}

func TestNetworkConfig(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	claim := func(c *lease.NetworkConfig) lease.Agent {
		t.Helper()
		resp, err := w.Claim(t.Context(), ip(1), api.ClaimRequest{ID: "a", AllOverlays: true, NetworkConfig: c})
		if err != nil {
			t.Fatal(err)
		}
		return resp.Agent
	}
	c := lease.DefaultNetworkConfig()
	c.AllocateSubnet, c.EnableIPv6 = false, false
	check(t, "VTEP only", brief(claim(&c)), "172.17.0.1 44.128.0.1/20")
	c.AllocateSubnet = true
	check(t, "IPv4 only", brief(claim(&c)), "172.17.0.1 44.128.0.1/20 dcos[9.0.0.0/24]")
	check(t, "an absent configuration leaves the recorded one", brief(claim(nil)), "172.17.0.1 44.128.0.1/20 dcos[9.0.0.0/24]")
	c.EnableIPv6, c.OverlayMTU = true, 1400
	a := claim(&c)
	check(t, "IPv6 enabled later", brief(a), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 mtu=1400 dcos[9.0.0.0/24] dcos6[fd01:b::/80]")
	check(t, "the record", a.Config, c)
}

// TestIPv6Later: an overlay of both families gets the one that it lacks with
// any claim, and with it a VTEP address.
func TestIPv6Later(t *testing.T) {
	w := newWorld(t, `{"vtep_subnet": "44.128.0.0/20", "vtep_subnet6": "fd01:a::/64", "vtep_mac_oui": "70:B3:D5:00:00:00",
		"overlays": [{"name": "both", "subnet": "9.0.0.0/8", "prefix": 24, "subnet6": "fd01:b::/64", "prefix6": 80}]}`, registry.Options{})
	c := lease.DefaultNetworkConfig()
	c.EnableIPv6 = false
	if _, err := w.Claim(t.Context(), ip(1), api.ClaimRequest{ID: "a", Overlays: []string{"both"}, NetworkConfig: &c}); err != nil {
		t.Fatal(err)
	}
	c.EnableIPv6 = true
	resp, err := w.Claim(t.Context(), ip(1), api.ClaimRequest{ID: "a", NetworkConfig: &c})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "agent", brief(resp.Agent), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 both[9.0.0.0/24 fd01:b::/80]")
}

func TestMove(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(1, "a", "dcos", "dcos6")
	w.claim(2, "b", "dcos")
	check(t, "to a new address", brief(w.claim(3, "a")), "172.17.0.3 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80]")
	_, err := w.Agent(t.Context(), ip(1))
	wantCode(t, err, api.CodeNotFound, "there is no agent 172.17.0.1")
	check(t, "the same address, a new id", brief(w.claim(2, "b2")), "172.17.0.2 44.128.0.2/20 fd01:a::2/64 dcos[9.0.1.0/24]")
	check(t, "the old id is a new agent elsewhere", brief(w.claim(4, "b")), "172.17.0.4 44.128.0.3/20 fd01:a::3/64")

	// Agent a gets the address that b2 had: b2 is not there any more.
	check(t, "to another's address", brief(w.claim(2, "a")), "172.17.0.2 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80]")
	agents := registrytest.Whole(t, w.store.Client)
	check(t, "agents", len(agents), 2)
	check(t, "what the displaced one held rests", brief(w.claim(5, "b2", "dcos")), "172.17.0.5 44.128.0.4/20 fd01:a::4/64 dcos[9.0.2.0/24]")
}

func TestReleaseAndQuarantine(t *testing.T) {
	w := newWorld(t, small, registry.Options{})
	for i := range 4 {
		w.claim(i, string(rune('a'+i)), "dcos")
	}
	_, err := w.Claim(t.Context(), ip(9), api.ClaimRequest{ID: "z", Overlays: []string{"dcos"}})
	wantCode(t, err, api.CodeExhausted, "overlay dcos: no free /24 of 9.0.0.0/22: 4 leased, none resting")

	w.release(2)
	w.clock.pass(time.Minute)
	w.release(0)
	w.release(0)
	_, err = w.Claim(t.Context(), ip(9), api.ClaimRequest{ID: "z", Overlays: []string{"dcos"}})
	wantCode(t, err, api.CodeExhausted, "overlay dcos: no free /24 of 9.0.0.0/22: 2 leased, 2 released and resting, the first until 2026-01-01T00:10:00Z")
	check(t, "VTEP addresses: never-used ones first", brief(w.claim(9, "z")), "172.17.0.9 44.128.0.5/29")

	w.clock.pass(quarantine)
	check(t, "the one released first", brief(w.claim(9, "z", "dcos")), "172.17.0.9 44.128.0.5/29 dcos[9.0.2.0/24]")
	check(t, "then the other", brief(w.claim(8, "y", "dcos")), "172.17.0.8 44.128.0.6/29 dcos[9.0.0.0/24]")
	check(t, "released VTEP address", brief(w.claim(7, "x")), "172.17.0.7 44.128.0.3/29")
	check(t, "released VTEP address", brief(w.claim(6, "w")), "172.17.0.6 44.128.0.1/29")
	_, err = w.Claim(t.Context(), ip(5), api.ClaimRequest{ID: "v"})
	wantCode(t, err, api.CodeExhausted, "VTEP: no free address of 44.128.0.0/29: 6 leased, none resting")
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	now := newClock()
	opts := registry.Options{Now: now.Now, Quarantine: quarantine}
	s := store(t, dir)
	r, stop := start(t, s, opts)
	w := &world{Registry: r, t: t, store: s, clock: now}
	if _, err := r.Seed(t.Context(), parse(t, small)); err != nil {
		t.Fatal(err)
	}
	w.ready(r)
	w.claim(1, "a", "dcos")
	w.claim(2, "b", "dcos")
	w.claim(3, "c", "dcos")
	w.release(2)
	stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	w.store = store(t, dir)
	w.Registry, stop = start(t, w.store, opts)
	w.ready(w.Registry)
	check(t, "an agent after a restart", brief(w.claim(1, "a")), "172.17.0.1 44.128.0.1/29 dcos[9.0.0.0/24]")
	check(t, "what rests is not given out", brief(w.claim(4, "d", "dcos")), "172.17.0.4 44.128.0.4/29 dcos[9.0.3.0/24]")
	registrytest.Whole(t, w.store.Client)
	stop()
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
}
