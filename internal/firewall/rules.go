package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/peerset"
)

const (
	// prefix begins the name of every chain of ours; iptables allows a name
	// of at most 28 characters.
	prefix = "DCOS-OVERLAY-"

	chainMasq    = prefix + "MASQ"
	chainForward = prefix + "FORWARD"
	// chainToSpace accepts what goes to an overlay. It is a chain of its own
	// so that n spaces need 2n rules and not n².
	chainToSpace = prefix + "TO-SPACE"
	// chainInput drops VXLAN packets of strangers. It is in table filter and
	// not in raw, where it would be run through by what is only forwarded too,
	// for next to nothing: a peer's packet costs the same in both.
	chainInput = prefix + "INPUT"
)

// Filter is what becomes of VXLAN packets that are not from a peer. Agents
// speak VXLAN in one address family, that of their underlay.
type Filter int

const (
	// FilterAsIs leaves the filter as it is, there or not: for a caller that
	// does not know all peers.
	FilterAsIs Filter = iota
	// FilterOff accepts VXLAN from everyone.
	FilterOff
	// FilterIPv4 drops what comes by IPv4 from an address that is not in
	// peerset's set, which has to be there. There is no filter of IPv6 then.
	FilterIPv4
	// FilterIPv6 is the same the other way round.
	FilterIPv6
)

// in tells whether there shall be a filter in one address family.
func (f Filter) in(v6 bool) bool { return f == FilterIPv6 && v6 || f == FilterIPv4 && !v6 }

// Config is what the rules depend on.
type Config struct {
	// Spaces4 and Spaces6 are every overlay's range and the VTEPs': traffic
	// between two of them is accepted and never masqueraded.
	Spaces4, Spaces6 []netip.Prefix
	// Sources4 and Sources6 are the overlays' ranges: traffic from them to
	// anything outside the spaces is masqueraded. A family without sources
	// has no rules.
	Sources4, Sources6 []netip.Prefix
	// Bridges are the overlays' Mesos bridges: what is forwarded from and to
	// them is accepted. Docker has its own rules for its own bridges.
	Bridges []string
	// Islands are the isolated overlays, and AllBridges both containerizers'
	// bridges of every overlay, each in the order of overlays' names.
	Islands    []Island
	AllBridges []string
	// VTEP is the VXLAN device. What leaves through it is never masqueraded,
	// so that an overlay which is younger than this Config works too.
	VTEP string
	// Filter is of peers' VXLAN packets. It does not depend on the overlays:
	// an overlay of IPv6 can have an underlay of IPv4.
	Filter Filter
}

// ConfigOf is the Config that n needs; it leaves the filter as it is.
func ConfigOf(n network.Network) Config {
	c := Config{
		Spaces4: n.Spaces(false),
		Spaces6: n.Spaces(true),
		VTEP:    network.VTEPName,
	}
	for _, o := range sortedByName(n.Overlays) {
		if o.Isolated {
			c.Islands = append(c.Islands, islandOf(o))
		}
		c.AllBridges = append(c.AllBridges, bothBridges(o)...)
		if o.Subnet.IsValid() {
			c.Sources4 = append(c.Sources4, o.Subnet.Masked())
		}
		if o.Subnet6.IsValid() {
			c.Sources6 = append(c.Sources6, o.Subnet6.Masked())
		}
		c.Bridges = append(c.Bridges, o.MesosBridge())
	}
	return c
}

func sortedByName(overlays []network.Overlay) []network.Overlay {
	return slices.SortedFunc(slices.Values(overlays), func(a, b network.Overlay) int { return strings.Compare(a.Name, b.Name) })
}

// Ruleset is what one family's tables shall hold of ours: every table that we
// have a part in, with no chains where we want none.
type Ruleset []Table

// Table is our part of one iptables table.
type Table struct {
	Name   string
	Chains []Chain
	// Kept are names of chains of ours that stay as they are, if they are.
	Kept []string
}

// Chain is one chain of ours, whole.
type Chain struct {
	Name string
	// Parent is the built-in chain that jumps here; empty for a chain that
	// only other chains of ours jump to.
	Parent string
	// Rules are in the form in which iptables-save prints them, less the
	// "-A <chain>" before each, so that they can be compared as text.
	Rules []string
}

// Want is the rule set that c asks for in one address family.
func Want(c Config, v6 bool) Ruleset {
	nat, filter := Table{Name: "nat"}, Table{Name: "filter"}
	if c.Filter == FilterAsIs {
		filter.Kept = []string{chainInput}
	}
	if c.Filter.in(v6) {
		input := Chain{Name: chainInput, Parent: "INPUT"}
		input.add("-p udp -m udp --dport %d -m set ! --match-set %s src -j DROP", network.VXLANPort, peerset.Of(v6).Name)
		filter.Chains = append(filter.Chains, input)
	}
	spaces, sources := c.Spaces4, c.Sources4
	// Multicast (RFC 5771, RFC 4291) and limited broadcast stay on the link,
	// where a translated source address would only mislead.
	links := []string{"224.0.0.0/4", "255.255.255.255/32"}
	if v6 {
		spaces, sources = c.Spaces6, c.Sources6
		links = []string{"ff00::/8"}
	}
	spaces, sources = ordered(spaces), ordered(sources)
	mangle := isolation(c, v6)
	if len(sources) == 0 {
		return Ruleset{mangle, nat, filter}
	}

	masq := Chain{Name: chainMasq, Parent: "POSTROUTING"}
	if c.VTEP != "" {
		masq.add("-o %s -j RETURN", c.VTEP)
	}
	// RETURN and not ACCEPT: a port mapping that a container reaches on its
	// own host is masqueraded by a later rule, the port mapper's.
	for _, p := range spaces {
		masq.add("-d %s -j RETURN", p)
	}
	for _, p := range links {
		masq.add("-d %s -j RETURN", p)
	}
	for _, p := range sources {
		masq.add("-s %s -j MASQUERADE%s", p, randomFully)
	}
	nat.Chains = []Chain{masq}

	forward := Chain{Name: chainForward, Parent: "FORWARD"}
	toSpace := Chain{Name: chainToSpace}
	for _, p := range spaces {
		forward.add("-s %s -j %s", p, chainToSpace)
		toSpace.add("-d %s -j ACCEPT", p)
	}
	bridges := slices.Clone(c.Bridges)
	slices.Sort(bridges)
	for _, b := range slices.Compact(bridges) {
		forward.add("-i %s -j ACCEPT", b)
		forward.add("-o %s -j ACCEPT", b)
	}
	for _, p := range sources {
		forward.add("-d %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", p)
	}
	filter.Chains = append(filter.Chains, forward, toSpace)
	// What keeps overlays apart comes first, before anything lets them meet.
	return Ruleset{mangle, nat, filter}
}

// randomFully makes the kernel choose masqueraded ports at random, which
// avoids the collisions that lose the first packets of connections under
// load. iptables has it since 1.6.2.
const randomFully = " --random-fully"

// withoutRandomFully is the rule for an iptables that lacks the option.
func withoutRandomFully(rule string) string { return strings.Replace(rule, randomFully, "", 1) }

func (c *Chain) add(format string, args ...any) {
	c.Rules = append(c.Rules, fmt.Sprintf(format, args...))
}

// ordered is ps sorted and without repetitions, so that the order in which
// overlays are configured changes no rule.
func ordered(ps []netip.Prefix) []netip.Prefix {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, netip.Prefix.Compare)
	return slices.Compact(ps)
}

// String is r as input of iptables-restore --noflush on a host where nothing
// of ours is there yet.
func (r Ruleset) String() string {
	var b strings.Builder
	for _, t := range r {
		if len(t.Chains) == 0 {
			continue
		}
		fmt.Fprintf(&b, "*%s\n", t.Name)
		for _, c := range t.Chains {
			fmt.Fprintf(&b, ":%s - [0:0]\n", c.Name)
		}
		for _, c := range t.Chains {
			for _, rule := range c.Rules {
				fmt.Fprintf(&b, "-A %s %s\n", c.Name, rule)
			}
			if c.Parent != "" {
				fmt.Fprintf(&b, "-I %s 1 %s\n", c.Parent, jump(c.Name))
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// jump is the one rule that leads to the chain called name.
func jump(name string) string { return "-j " + name }
