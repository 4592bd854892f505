package host

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

func TestUnleased(t *testing.T) {
	h := &Host{Dir: agentstate.Dir{State: t.TempDir()}}
	agent := func(i int, subnets, subnets6 int) lease.Agent {
		o := lease.Overlay{Name: "dual"}
		o.Subnets = make([]netip.Prefix, subnets)
		o.Subnets6 = make([]netip.Prefix, subnets6)
		return lease.Agent{IP: netip.MustParseAddr(fmt.Sprint("172.17.0.", i)), Overlays: []lease.Overlay{o}}
	}
	held := &agentstate.Held{Agent: agent(1, 1, 1), Network: network.Network{Overlays: []network.Overlay{{
		Name: "dual", Subnet: netip.MustParsePrefix("10.66.0.0/24"), Prefix: 28,
		Subnet6: netip.MustParsePrefix("fd01::/64"), Prefix6: 127,
	}}}}
	if _, _, ok := h.unleased(held, "dual"); ok {
		t.Error("it knows without having been told of anybody")
	}
	// This agent is among those that it was told of, and counts once.
	if err := h.Dir.SavePeers([]lease.Agent{agent(1, 1, 1), agent(2, 2, 2), agent(3, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	if free, all, ok := h.unleased(held, "dual"); free != 13 || all != 16 || !ok {
		t.Errorf("got %d of %d, %v; want 13 of 16", free, all, ok)
	}
	held.Network.Overlays[0].Subnet = netip.Prefix{}
	if free, all, ok := h.unleased(held, "dual"); all != 1<<62 || free != all-3 || !ok {
		t.Errorf("got %d of %d, %v; want all but 3 of 2^62", free, all, ok)
	}
	if _, _, ok := h.unleased(held, "other"); ok {
		t.Error("it knows of an overlay that is not there")
	}
}
