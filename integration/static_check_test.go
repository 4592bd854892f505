package integration

import (
	"net/http"
	"testing"
)

// TestCheckOfFixedAddresses: CHECK finds out when the host does not route a
// fixed address any more, and when the address is no longer this agent's.
func TestCheckOfFixedAddresses(t *testing.T) {
	s := newCNIScene(t)
	h, ctx := s.A, t.Context()
	putOverlay(t, s, "fixed", fixedOverlay)
	on := func(script string) {
		t.Helper()
		must[string](t)(h.Run(ctx, "sh", "-ec", script))
	}
	start := func(id, ips string) cniCall {
		t.Helper()
		c := cniCall{Verb: "ADD", ID: id, Netns: newNetns(t, h, id), Args: "IP=" + ips, Conf: netConf("fixed", "1.0.0")}
		return c.with(map[string]any{"prevResult": prevOf(t, c.ok(t, h))}).verb("CHECK")
	}
	c := start("c1", "10.60.255.7,fd01:60:0:0:ffff::7")
	c.ok(t, h)
	on(`ip route del 10.60.255.7 dev m-fixed`)
	c.fails(t, h, 105, "no route to the fixed addresses [10.60.255.7] on bridge m-fixed", "c1")
	on(`ip route add 10.60.255.7 dev m-fixed proto 44 scope link metric 1; ip -6 route del fd01:60:0:0:ffff::7 dev m-fixed`)
	c.fails(t, h, 105, "no route to the fixed addresses [fd01:60::ffff:0:0:7] on bridge m-fixed")
	on(`ip -6 route add fd01:60:0:0:ffff::7 dev m-fixed proto 44 metric 1`)
	c.ok(t, h)

	// The coordinator takes it for free, as after a takeover, and this agent
	// learns of that by its next claim.
	url := s.Master.CoordinatorURL() + "/v1/agents/" + h.Addr.String() + "/addresses/fixed/10.60.255.7?container=c1&ifname=eth0"
	if code, body, err := h.HTTP(ctx, http.MethodDelete, url, nil); err != nil || code != http.StatusNoContent {
		t.Fatalf("give the address back: %d %s, %v", code, body, err)
	}
	other := start("c2", "10.60.255.8")
	c.fails(t, h, 105, "the fixed address 10.60.255.7 is not this agent's any more", "c1")
	for _, c := range []cniCall{c, other} {
		c.verb("DEL").ok(t, h)
	}
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	if o := heldOf(t, s, h, "fixed"); len(o.Addresses) > 0 {
		t.Errorf("the agent holds %v", o.Addresses)
	}
}
