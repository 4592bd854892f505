package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/peerset"
)

// Part is what a Finding is about.
type Part string

// The parts of a host, in the order in which Check looks at them.
const (
	PartIPv6       Part = "IPv6"
	PartUnderlay   Part = "underlay"
	PartVTEP       Part = "VTEP"
	PartBridge     Part = "bridge"
	PartForwarding Part = "forwarding"
	PartPeers      Part = "peers"
	PartFixed      Part = "fixed addresses"
	PartFilter     Part = "VXLAN filter"
	PartRules      Part = "iptables"
)

// Finding is how one part of this host is, compared with what Program makes
// of it.
type Finding struct {
	Part Part
	// Want says in words what should be.
	Want string
	// Problems are what Program would repair; none when all is right.
	Problems []string
	// Warnings are what may be trouble and is no error.
	Warnings []string
	// Err is why the part could not be looked at.
	Err error
}

// Checked is what Check found.
type Checked struct {
	Findings []Finding
	// Underlay is the device that the agent's address is on; the zero value
	// when there is none.
	Underlay kernel.Underlay
	// MTU is that of containers, and VTEPMTU that of the VTEP, in bytes; 0
	// without Underlay.
	MTU, VTEPMTU int
	// Rules are those that there should be.
	Rules firewall.Config
}

// Check compares this host's kernel with what Program would bring it to, and
// changes nothing. It needs no lock. The error is why nothing could be looked
// at.
func (h *Host) Check(ctx context.Context, held *agentstate.Held, known Knowledge) (Checked, error) {
	k, err := kernel.Open()
	if err != nil {
		return Checked{}, err
	}
	defer k.Close()
	out := Checked{}
	add := func(f Finding) { out.Findings = append(out.Findings, f) }
	held, known, lacking := h.feasible(k, held, known)
	self := &held.Agent
	rules, unruled := h.rulesOf(held)
	for _, lacking := range []map[string]error{lacking, unruled} {
		for _, overlay := range slices.Sorted(maps.Keys(lacking)) {
			add(Finding{Part: PartIPv6, Problems: []string{fmt.Sprintf("overlay %s: %v", overlay, lacking[overlay])}})
		}
	}
	underlay, err := k.Underlay(self.IP)
	if err != nil {
		add(Finding{Part: PartUnderlay, Err: err})
	} else {
		out.Underlay = underlay
		out.MTU, out.VTEPMTU = h.mtus(held, underlay)
		add(Finding{Part: PartUnderlay, Want: fmt.Sprintf("%s on %s, MTU %d", self.IP, underlay.Name, underlay.MTU), Warnings: h.tooLong(held, underlay)})
		h.checkDevices(ctx, k, held, &out)
	}
	forwarding, err := k.CheckForwarding(ctx, true, self.VTEP.IP6.IsValid())
	add(Finding{Part: PartForwarding, Want: "packets are forwarded", Problems: forwarding, Err: err})
	add(checkPeers(ctx, k, self.IP, known))
	if self.Config.MesosBridge {
		out.Findings = append(out.Findings, h.checkFixed(ctx, k, held)...)
	}
	filter, filterRule := h.checkFilter(self, known)
	add(filter)
	rules.Filter = filterRule
	out.Rules = rules
	f := firewall.New()
	problems, err := f.Check(ctx, rules)
	add(Finding{Part: PartRules, Want: "chains, their rules and the jumps to them", Problems: problems, Warnings: f.Warnings(ctx), Err: err})
	return out, nil
}

func (h *Host) checkDevices(ctx context.Context, k *kernel.Kernel, held *agentstate.Held, out *Checked) {
	self := &held.Agent
	vtep := dataplane.VTEPOf(self, out.VTEPMTU)
	vtep.TxOffload = h.Conf.VTEPTxOffload
	problems, err := k.CheckVTEP(ctx, vtep)
	out.Findings = append(out.Findings, Finding{Part: PartVTEP, Want: vtep.String(), Problems: problems, Err: err})
	if !self.Config.MesosBridge {
		return
	}
	lost, lostErr := h.lost(ctx, k, held)
	for _, o := range self.Overlays {
		bridge := dataplane.MesosBridgeOf(o, out.MTU)
		problems, err := k.CheckBridge(ctx, bridge)
		err = errors.Join(err, lostErr)
		if links := lost[o.Name]; len(links) > 0 {
			problems = append(problems, fmt.Sprintf("%s: links of containers are not on it: %s", bridge.Name, strings.Join(few(links), ", ")))
		}
		out.Findings = append(out.Findings, Finding{Part: PartBridge, Want: bridge.String(), Problems: problems, Err: err})
	}
}

func checkPeers(ctx context.Context, k *kernel.Kernel, self netip.Addr, known Knowledge) Finding {
	want := dataplane.PeersOf(self, known.Agents)
	f := Finding{Part: PartPeers, Want: fmt.Sprintf("%d neighbours, %d forwarding entries, %d routes", len(want.Neighs), len(want.FDB), len(want.Routes))}
	stats, err := k.CheckPeers(ctx, network.VTEPName, want)
	if err != nil {
		f.Err = err
		if errors.Is(err, kernel.ErrNoDevice) {
			f.Err, f.Problems = nil, []string{"there is no " + network.VTEPName + ", so no other agent is reached"}
		}
		return f
	}
	c := stats.Changes
	if !known.Complete {
		c.DelRoutes, c.DelNeighs, c.DelFDB, stats.Foreign = nil, nil, nil, 0
	}
	lines := c.Lines()
	for i := range lines {
		if i < c.Sets() {
			lines[i] = "it lacks " + lines[i][len("set "):]
		} else {
			lines[i] = "it has a stray " + lines[i][len("delete "):]
		}
	}
	if stats.Foreign > 0 {
		lines = append(lines, fmt.Sprintf("it has %d stray entries that no agent can have", stats.Foreign))
	}
	f.Problems = few(lines)
	return f
}

// few is at most fewChanges lines, and how many are left out.
func few(lines []string) []string {
	if len(lines) <= fewChanges {
		return lines
	}
	return append(slices.Clip(lines[:fewChanges]), fmt.Sprintf("and %d more", len(lines)-fewChanges))
}

// checkFilter compares the set of peers, and says which rule there should be.
// Without companion a filter that is there stays, and may lack a peer.
func (h *Host) checkFilter(self *lease.Agent, known Knowledge) (Finding, firewall.Filter) {
	f := Finding{Part: PartFilter, Want: "off (vxlan_filter is false)"}
	if !h.Conf.VXLANFilter {
		return f, firewall.FilterOff
	}
	set := peerset.Of(self.IP.Is6())
	have, there, err := set.Addrs()
	if err != nil {
		f.Err = err
		return f, firewall.FilterAsIs
	}
	if !there {
		f.Want = "VXLAN is accepted from every address"
		if known.Complete && h.Dir.CompanionRuns() {
			f.Warnings = []string{"ipset " + set.Name + " is missing, so VXLAN is accepted from every address"}
		}
		return f, firewall.FilterAsIs
	}
	var want []netip.Addr
	for _, a := range known.Agents {
		if a.IP != self.IP && a.IP.Is6() == set.V6 {
			want = append(want, a.IP)
		}
	}
	f.Want = fmt.Sprintf("VXLAN is accepted from %d agents", len(want))
	var lines []string
	for _, ip := range want {
		if !slices.Contains(have, ip) {
			lines = append(lines, fmt.Sprintf("ipset %s lacks agent %s, whose packets are dropped", set.Name, ip))
		}
	}
	f.Problems = few(lines)
	if known.Complete {
		lines = nil
		for _, ip := range have {
			if !slices.Contains(want, ip) {
				lines = append(lines, fmt.Sprintf("ipset %s has %s, which is no agent", set.Name, ip))
			}
		}
		f.Warnings = few(lines)
	}
	if set.V6 {
		return f, firewall.FilterIPv6
	}
	return f, firewall.FilterIPv4
}
