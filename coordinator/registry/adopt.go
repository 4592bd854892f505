package registry

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
	"github.com/dcos/dcos-overlay/internal/network"
)

// adoption judges a state of DC/OS's against an index, and gathers what is to
// be stored and all that is in its way. It is pure.
type adoption struct {
	x      *index
	rested time.Time

	// agents are those to be stored.
	agents  []*lease.Agent
	result  api.ImportResponse
	reasons []string

	// inState, owners and macs tell who has what: inside the state, in the
	// index, and in both.
	inState map[netip.Addr]bool
	owners  map[string]netip.Addr
	macs    map[network.MAC]netip.Addr
}

// adopt judges state. rested is the latest release that has rested enough.
func adopt(x *index, state masterstate.State, rested time.Time) *adoption {
	a := &adoption{
		x: x, rested: rested,
		inState: map[netip.Addr]bool{}, owners: map[string]netip.Addr{}, macs: map[network.MAC]netip.Addr{},
	}
	for ip, stored := range x.agents {
		for _, u := range units(stored.Agent) {
			a.owners[u.key] = ip
		}
		a.macs[stored.VTEP.MAC] = ip
	}
	for _, entry := range state.Agents {
		a.entry(entry)
	}
	a.result.Imported = len(a.agents)
	return a
}

func (a *adoption) clash(ip netip.Addr, format string, args ...any) {
	a.reasons = append(a.reasons, fmt.Sprintf("agent %s: ", ip)+fmt.Sprintf(format, args...))
}

// entry judges one agent of the state.
func (a *adoption) entry(e masterstate.Agent) {
	ip := e.IP.Unmap()
	switch {
	case !ip.IsValid() || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast():
		a.clash(ip, "this is not the address of an agent")
		return
	case a.inState[ip]:
		a.clash(ip, "it is in the state twice")
		return
	}
	a.inState[ip] = true
	if len(e.Overlays) == 0 {
		a.result.Empty++
		return
	}
	before := len(a.reasons)
	agent := a.record(ip, e)
	if len(a.reasons) > before {
		return
	}
	if stored := a.x.agents[ip]; stored != nil {
		if holdsAll(stored.Agent, agent) {
			a.result.Unchanged++
		} else {
			a.clash(ip, "it is stored already, and holds something else: delete it first, or leave it out")
		}
		return
	}
	a.free(ip, agent)
	if len(a.reasons) == before {
		a.agents = append(a.agents, agent)
	}
}

// record makes e a record, and tells of what does not go with the network's
// configuration.
func (a *adoption) record(ip netip.Addr, e masterstate.Agent) *lease.Agent {
	config := lease.DefaultNetworkConfig()
	config.AllocateSubnet, config.MesosBridge, config.DockerBridge = false, false, false
	agent := &lease.Agent{IP: ip, VTEP: a.vtep(ip, e.Overlays)}
	for _, o := range e.Overlays {
		config.MesosBridge = config.MesosBridge || o.MesosBridge != nil
		config.DockerBridge = config.DockerBridge || o.DockerBridge != nil
		held := lease.Overlay{Name: o.Info.Name, State: lease.State{Status: lease.StatusConfiguring}}
		switch _, configured := a.x.overlays[o.Info.Name]; {
		case !configured:
			a.clash(ip, "there is no overlay %q here: configure it first", o.Info.Name)
			continue
		case agent.Overlay(o.Info.Name) != nil:
			a.clash(ip, "overlay %s is there twice", o.Info.Name)
			continue
		}
		if a.subnet(ip, "subnet", o, poolID{overlay: o.Info.Name}, o.Subnet) {
			held.Subnets = []netip.Prefix{o.Subnet}
		}
		if a.subnet(ip, "subnet6", o, poolID{overlay: o.Info.Name, v6: true}, o.Subnet6) {
			held.Subnets6 = []netip.Prefix{o.Subnet6}
		}
		if len(held.AllSubnets()) > 0 {
			agent.Overlays = append(agent.Overlays, held)
			config.AllocateSubnet = true
		}
	}
	slices.SortStableFunc(agent.Overlays, func(p, q lease.Overlay) int { return a.x.place(p.Name) - a.x.place(q.Name) })
	agent.Config = config
	return agent
}

// subnet tells whether o has p, and whether it can be kept: it and its halves
// must be what would have been leased here.
func (a *adoption) subnet(ip netip.Addr, field string, o masterstate.Overlay, pool poolID, p netip.Prefix) bool {
	if p == (netip.Prefix{}) {
		return false
	}
	if !a.x.pool(pool).Fits(p) {
		a.clash(ip, "overlay %s: %s %s is not one that is leased from this overlay here", o.Info.Name, field, p)
		return false
	}
	lower, upper := network.Halves(p)
	for _, side := range []struct {
		name   string
		bridge *masterstate.Bridge
		want   netip.Prefix
	}{{"mesos_bridge", o.MesosBridge, lower}, {"docker_bridge", o.DockerBridge, upper}} {
		if side.bridge == nil {
			continue
		}
		got := side.bridge.IP
		if pool.v6 {
			got = side.bridge.IP6
		}
		if got != (netip.Prefix{}) && got != side.want {
			a.clash(ip, "overlay %s: %s has %s, and would have %s here", o.Info.Name, side.name, got, side.want)
		}
	}
	return true
}

// vtep is what all of overlays say of the agent's VTEP.
func (a *adoption) vtep(ip netip.Addr, overlays []masterstate.Overlay) lease.VTEP {
	first := overlays[0].Backend.VXLAN
	v := lease.VTEP{IP: first.VTEPIP, IP6: first.VTEPIP6, MAC: first.VTEPMAC}
	for _, o := range overlays[1:] {
		if x := o.Backend.VXLAN; (lease.VTEP{IP: x.VTEPIP, IP6: x.VTEPIP6, MAC: x.VTEPMAC}) != v {
			a.clash(ip, "overlays %s and %s tell of different VTEPs", overlays[0].Info.Name, o.Info.Name)
			return v
		}
	}
	a.vtepAddress(ip, "vtep_ip", v.IP, a.x.base.VTEPSubnet)
	if v.IP6 != (netip.Prefix{}) {
		a.vtepAddress(ip, "vtep_ip6", v.IP6, a.x.base.VTEPSubnet6)
	}
	a.mac(ip, v)
	return v
}

func (a *adoption) vtepAddress(ip netip.Addr, field string, p, space netip.Prefix) {
	if !p.IsValid() || p.Addr().Is6() != space.Addr().Is6() || p.Bits() != space.Bits() ||
		!a.x.pool(poolID{v6: p.Addr().Is6()}).Fits(netip.PrefixFrom(p.Addr(), p.Addr().BitLen())) {
		a.clash(ip, "%s %s is not an address of the VTEPs' range here, %s", field, show(p), show(space))
	}
}

// mac tells of a MAC that can't be kept. One that is not made by the rule of
// now is kept, unless the rule gives it to another VTEP.
func (a *adoption) mac(ip netip.Addr, v lease.VTEP) {
	if !v.IP.IsValid() || !v.IP.Addr().Is4() {
		return
	}
	if v.MAC == (network.MAC{}) || v.MAC[0]&1 != 0 {
		a.clash(ip, "vtep_mac %s is not one that a device can have", v.MAC)
		return
	}
	ruled := a.x.base.VTEPSubnet.Addr().As4()
	first := a.x.base.VTEPSubnet.Bits() // of what the range leaves open, /8 at least
	for bit := 8; bit < 32; bit++ {
		if mask := byte(0x80 >> (bit % 8)); bit >= first {
			ruled[bit/8] = ruled[bit/8]&^mask | v.MAC[bit/8+2]&mask
		}
	}
	other := netip.AddrFrom4(ruled)
	mac, err := a.x.base.VTEPMAC(other)
	if err == nil && mac == v.MAC && other != v.IP.Addr() {
		a.clash(ip, "vtep_mac %s belongs to VTEP %s, and the agent's is %s", v.MAC, other, v.IP)
	}
}

// free tells of what agent holds that somebody else has, and notes that it is
// agent's now.
func (a *adoption) free(ip netip.Addr, agent *lease.Agent) {
	for _, u := range units(agent) {
		if owner, taken := a.owners[u.key]; taken {
			a.clash(ip, "%s is agent %s's", u, owner)
		} else if since, released := a.x.pool(u.pool).ReleasedAt(u.prefix); released && since.After(a.rested) {
			a.clash(ip, "%s was released lately, and rests", u)
		}
		a.owners[u.key] = ip
	}
	if owner, taken := a.macs[agent.VTEP.MAC]; taken {
		a.clash(ip, "vtep_mac %s is agent %s's", agent.VTEP.MAC, owner)
	}
	a.macs[agent.VTEP.MAC] = ip
}

// holdsAll tells whether stored holds all that wanted does; it may hold more,
// which it has claimed since.
func holdsAll(stored, wanted *lease.Agent) bool {
	held := map[string]bool{}
	for _, u := range units(stored) {
		held[u.key] = true
	}
	for _, u := range units(wanted) {
		if !held[u.key] {
			return false
		}
	}
	return stored.VTEP.MAC == wanted.VTEP.MAC
}
