package firewall

import (
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// chainIsolate drops what passes between an isolated overlay and others. It
	// is in table mangle, whose rules of forwarding come before filter's: who
	// accepts a packet in filter, as rules for established connections do,
	// does not let it past this one.
	chainIsolate = prefix + "ISOLATE"
	// chainToOthers drops what goes to an overlay, and chainFromOthers what
	// comes from one: n overlays need some n rules and not n².
	chainToOthers   = prefix + "TO-OTHERS"
	chainFromOthers = prefix + "FROM-OTHERS"
)

// Island is an overlay that keeps to itself.
type Island struct {
	// Space4 and Space6 are its ranges; the zero Prefix where it lacks one.
	Space4, Space6 netip.Prefix
	// Bridges are those of both containerizers.
	Bridges []string
}

// islandOf is the Island that o is.
func islandOf(o network.Overlay) Island {
	return Island{Space4: masked(o.Subnet), Space6: masked(o.Subnet6), Bridges: bothBridges(o)}
}

func bothBridges(o network.Overlay) []string { return []string{o.MesosBridge(), o.DockerBridge()} }

func masked(p netip.Prefix) netip.Prefix {
	if !p.IsValid() {
		return p
	}
	return p.Masked()
}

func (i Island) space(v6 bool) netip.Prefix {
	if v6 {
		return i.Space6
	}
	return i.Space4
}

// isolation is table mangle's part of what c asks for in one address family.
//
// A packet's source is believed only where it comes from another agent, which
// has dropped what its own containers had forged: what a container here sends
// is known by the bridge that it comes from.
func isolation(c Config, v6 bool) Table {
	mangle := Table{Name: "mangle"}
	sources := c.Sources4
	if v6 {
		sources = c.Sources6
	}
	var islands []Island
	for _, i := range c.Islands {
		if i.space(v6).IsValid() {
			islands = append(islands, i)
		}
	}
	if len(islands) == 0 {
		return mangle
	}
	isolate := Chain{Name: chainIsolate, Parent: "FORWARD"}
	toOthers, fromOthers := Chain{Name: chainToOthers}, Chain{Name: chainFromOthers}
	// A mapped port is the host's, which everybody may reach; the same port
	// reached by way of another host could not be told from that host.
	isolate.add("-m conntrack --ctstate DNAT -j RETURN")
	for _, i := range islands {
		own := i.space(v6)
		for _, b := range i.Bridges {
			isolate.add("-d %s -i %s -j RETURN", own, b)
			isolate.add("-i %s -j %s", b, chainToOthers)
		}
		isolate.add("-s %s -d %s -i %s -j RETURN", own, own, c.VTEP)
		isolate.add("-s %s -j %s", own, chainToOthers)
		isolate.add("-d %s -j %s", own, chainFromOthers)
	}
	for _, p := range ordered(sources) {
		toOthers.add("-d %s -j DROP", p)
		fromOthers.add("-s %s -j DROP", p)
	}
	for _, b := range c.AllBridges {
		fromOthers.add("-i %s -j DROP", b)
	}
	mangle.Chains = []Chain{isolate, toOthers, fromOthers}
	return mangle
}
