package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// maxAgentBits and maxAgentBits6 are the longest agent subnets: a half of
	// one must hold the network address, the bridge's, the broadcast address
	// (IPv4) and a container's. A /30 holds four, and a /126 likewise.
	maxAgentBits, maxAgentBits6 = 29, 125
	// minVTEPBits: only the last 24 bits of a VTEP's address are in its MAC.
	minVTEPBits = 8
	// maxVTEPBits and maxVTEPBits6 leave two host addresses at least.
	maxVTEPBits, maxVTEPBits6 = 30, 126
	// minMTU is what every IPv4 host must be able to receive (RFC 791),
	// minMTU6 the least MTU of an IPv6 link (RFC 8200), and maxMTU the
	// longest IP packet without jumbograms.
	minMTU, minMTU6, maxMTU = 576, 1280, 65535
	// maxSubnets is what an agent can give back of one overlay in a transaction
	// of etcd's usual limit, 128 operations, twice over.
	maxSubnets = 32
	// minTakeover is the least time after which a fixed address goes from an
	// agent that is silent: the least that agents count as alive for.
	minTakeover = time.Second
)

// reservedNames are those that Docker refuses for a network, or keeps for its
// own ones.
var reservedNames = []string{"host", "bridge", "default", "none"}

// reservedRange is one that no overlay and no VTEP can be in.
type reservedRange struct {
	prefix netip.Prefix
	use    string
}

func reservedRanges() []reservedRange {
	return []reservedRange{
		{netip.MustParsePrefix("0.0.0.0/8"), "unspecified addresses"},
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local addresses"},
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
		{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
		{netip.MustParsePrefix("::/128"), "the unspecified address"},
		{netip.MustParsePrefix("::1/128"), "loopback"},
		{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 addresses written as IPv6"},
		{netip.MustParsePrefix("fe80::/10"), "link-local addresses"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
	}
}

// Validate returns all that is wrong with n, in the order of its fields and
// without positions. The names and address spaces of what passes can be used
// as device names, etcd keys, URL segments and kernel routes as they are.
func (n Network) Validate() Problems {
	v := validator{network: n, reserved: reservedRanges()}
	v.vtep()
	if len(n.Overlays) == 0 {
		v.add("overlays", "no overlay is configured; at least one is needed")
	}
	names := make(map[string]int, len(n.Overlays))
	for i, o := range n.Overlays {
		path := fmt.Sprintf("overlays[%d]", i)
		v.name(path+".name", o.Name)
		if first, ok := names[o.Name]; ok && o.Name != "" {
			v.add(path+".name", "%q is the name of overlays[%d] too", o.Name, first)
		} else {
			names[o.Name] = i
		}
		if o.Subnet == (netip.Prefix{}) && o.Prefix == 0 && o.Subnet6 == (netip.Prefix{}) && o.Prefix6 == 0 {
			v.add(path, "has no addresses; give it subnet and prefix, or subnet6 and prefix6, or all four")
			continue
		}
		v.overlaySpace(path, ipv4(), o.Subnet, o.Prefix)
		v.overlaySpace(path, ipv6(), o.Subnet6, o.Prefix6)
		v.dockerPart(path, ipv4(), o.Prefix, o.DockerPrefix)
		v.dockerPart(path, ipv6(), o.Prefix6, o.DockerPrefix6)
		v.static(path, ipv4(), o.StaticSubnet, o.Subnet, o.Prefix)
		v.static(path, ipv6(), o.StaticSubnet6, o.Subnet6, o.Prefix6)
		v.takeover(path+".static_takeover", o)
		if o.MaxSubnets < 0 || o.MaxSubnets > maxSubnets {
			v.add(path+".max_subnets", "%d is not from 1 to %d; it is how many subnets one agent may hold, %d if left out", o.MaxSubnets, maxSubnets, DefaultMaxSubnets)
		}
	}
	return v.Problems
}

// family holds what the rules of IPv4 and IPv6 differ in.
type family struct {
	name        string
	suffix      string // of the fields: subnet6, prefix6
	bits        int    // of an address
	maxAgent    int    // longest subnet of an agent
	maxVTEP     int    // longest range of VTEP addresses
	example     string
	exampleBits int
	otherName   string
	otherField  string
}

func ipv4() family {
	return family{"IPv4", "", 32, maxAgentBits, maxVTEPBits, "9.0.0.0/8", 24, "IPv6", "subnet6"}
}

func ipv6() family {
	return family{"IPv6", "6", 128, maxAgentBits6, maxVTEPBits6, "fd01:b::/64", 80, "IPv4", "subnet"}
}

// space is an address space that was seen, with the field that it is from.
type space struct {
	path   string
	prefix netip.Prefix
}

type validator struct {
	Problems
	network  Network
	reserved []reservedRange
	spaces   []space
}

func (v *validator) name(path, name string) {
	if name == "" {
		v.add(path, "is missing")
		return
	}
	if len(name) > MaxNameLen {
		v.add(path, "%q has %d bytes; at most %d fit a device name after \"m-\"", name, len(name), MaxNameLen)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if i == 0 && !letter {
			v.add(path, "%q begins with %q; a name begins with a letter or a digit of ASCII", name, r)
			return
		}
		if !letter && !strings.ContainsRune("-_.", r) {
			v.add(path, "%q holds %q; a name holds letters and digits of ASCII, \"-\", \"_\" and \".\" only", name, r)
			return
		}
	}
	if slices.Contains(reservedNames, name) {
		v.add(path, "%q is one of the names that Docker keeps for itself (%s)", name, strings.Join(reservedNames, ", "))
	}
}

// overlaySpace checks one family of the overlay at path.
func (v *validator) overlaySpace(path string, f family, p netip.Prefix, bits int) {
	subnetPath, prefixPath := path+".subnet"+f.suffix, path+".prefix"+f.suffix
	if p == (netip.Prefix{}) && bits == 0 {
		return
	}
	if p == (netip.Prefix{}) {
		v.add(subnetPath, "is missing, though prefix%s is given; it is the overlay's address space, such as %s", f.suffix, f.example)
	}
	ok := p != (netip.Prefix{}) && v.addresses(subnetPath, f, p)
	switch {
	case bits == 0:
		v.add(prefixPath, "is missing; it is the length of an agent's subnet, such as %d", f.exampleBits)
	case bits < 0:
		v.add(prefixPath, "%d is not a length in bits; it is the length of an agent's subnet, such as %d", bits, f.exampleBits)
	case bits > f.bits:
		v.add(prefixPath, "%d is longer than an %s address (%d)", bits, f.name, f.bits)
	case bits > f.maxAgent:
		v.add(prefixPath, "%d is too long; the longest is %d, for Mesos and Docker get half of an agent's subnet each, and a bridge with a container needs a /%d", bits, f.maxAgent, f.maxAgent+1)
	case ok && bits <= p.Bits():
		v.add(prefixPath, "%d is not longer than the %d of subnet%s (%s), which agents' subnets are cut out of", bits, p.Bits(), f.suffix, p)
	}
}

// dockerPart checks how one family of the overlay at path is split between
// Mesos and Docker.
func (v *validator) dockerPart(path string, f family, agentBits, bits int) {
	path += ".docker_prefix" + f.suffix
	switch {
	case bits == 0:
	case agentBits == 0:
		v.add(path, "is given, though the overlay has no %s: there is no prefix%s", f.name, f.suffix)
	case bits <= agentBits:
		v.add(path, "%d is not longer than the %d of prefix%s; it is the length of Docker's part of an agent's subnet", bits, agentBits, f.suffix)
	case bits > f.maxAgent+1:
		v.add(path, "%d is too long; the longest is %d, for a bridge with a container needs that", bits, f.maxAgent+1)
	}
}

// static checks the part of one family of the overlay at path that fixed
// addresses are of: it is made of whole agent subnets, and leaves others over.
func (v *validator) static(path string, f family, p, space netip.Prefix, agentBits int) {
	path += ".static_subnet" + f.suffix
	switch {
	case p == (netip.Prefix{}):
	case !space.IsValid() || agentBits == 0:
		v.add(path, "is given, though the overlay has no %s: there is no subnet%s", f.name, f.suffix)
	case !p.IsValid() || p.Addr().BitLen() != f.bits:
		v.add(path, "%s is not an %s subnet such as %s", p, f.name, f.example)
	case p != p.Masked():
		v.add(path, "%s has bits set after its first %d; write %s", p, p.Bits(), p.Masked())
	case !space.Contains(p.Addr()) || p.Bits() <= space.Bits():
		v.add(path, "%s is not a part of subnet%s (%s)", p, f.suffix, space)
	case p.Bits() > agentBits:
		v.add(path, "%s is less than one agent's subnet: its length is at most the %d of prefix%s", p, agentBits, f.suffix)
	}
}

// takeover checks how soon fixed addresses go from an agent that is silent.
func (v *validator) takeover(path string, o Overlay) {
	switch d := time.Duration(o.StaticTakeover); {
	case d == 0:
	case len(o.Statics()) == 0:
		v.add(path, "is given, though there is no static_subnet")
	case d < minTakeover:
		v.add(path, "%s is less than %s", d, minTakeover)
	}
}

// addresses checks the rules that hold for every address space, and tells
// whether p can be judged further.
func (v *validator) addresses(path string, f family, p netip.Prefix) bool {
	if !p.IsValid() || p.Addr().BitLen() != f.bits {
		hint := ""
		if p.IsValid() && strings.HasPrefix(path, "overlays") {
			hint = "; an " + f.otherName + " space goes into " + f.otherField
		}
		v.add(path, "%s is not an %s subnet such as %s%s", p, f.name, f.example, hint)
		return false
	}
	if p != p.Masked() {
		v.add(path, "%s has bits set after its first %d; write %s", p, p.Bits(), p.Masked())
	}
	p = p.Masked()
	for _, r := range v.reserved {
		if r.prefix.Overlaps(p) {
			v.add(path, "%s overlaps %s, which is for %s", p, r.prefix, r.use)
			return true
		}
	}
	for _, s := range v.spaces {
		if s.prefix.Overlaps(p) {
			v.add(path, "%s overlaps %s (%s)", p, s.path, s.prefix)
			break
		}
	}
	v.spaces = append(v.spaces, space{path, p})
	return true
}

// vtep checks what is not of one overlay.
func (v *validator) vtep() {
	n := v.network
	if n.VTEPSubnet == (netip.Prefix{}) {
		v.add("vtep_subnet", "is missing; it is the range that agents get their VTEP's address from, such as 44.128.0.0/20")
	} else if v.addresses("vtep_subnet", ipv4(), n.VTEPSubnet) {
		if n.VTEPSubnet.Bits() < minVTEPBits {
			v.add("vtep_subnet", "%s is wider than /%d; a VTEP's MAC is made of the last 24 bits of its address, so two VTEPs could get one MAC", n.VTEPSubnet, minVTEPBits)
		}
		v.vtepLength("vtep_subnet", ipv4(), n.VTEPSubnet)
	}

	first6 := slices.IndexFunc(n.Overlays, func(o Overlay) bool { return o.Subnet6 != (netip.Prefix{}) })
	if n.VTEPSubnet6 != (netip.Prefix{}) {
		if v.addresses("vtep_subnet6", ipv6(), n.VTEPSubnet6) {
			v.vtepLength("vtep_subnet6", ipv6(), n.VTEPSubnet6)
		}
	} else if first6 >= 0 {
		v.add("vtep_subnet6", "is missing, though overlays[%d] has subnet6; it is the range that agents get their VTEP's IPv6 address from, such as fd01:a::/64", first6)
	}

	v.oui("vtep_mac_oui", n.VTEPMACOUI)

	lowest, reason := minMTU, "which every IPv4 host takes"
	if first6 >= 0 || n.VTEPSubnet6 != (netip.Prefix{}) {
		lowest, reason = minMTU6, "which IPv6 needs"
	}
	switch {
	case n.VTEPMTU == 0:
	case n.VTEPMTU < lowest:
		v.add("vtep_mtu", "%d is less than %d, %s; leave it out to have it from the underlay", n.VTEPMTU, lowest, reason)
	case n.VTEPMTU > maxMTU:
		v.add("vtep_mtu", "%d is more than %d, the longest IP packet; leave it out to have it from the underlay", n.VTEPMTU, maxMTU)
	}
}

func (v *validator) vtepLength(path string, f family, p netip.Prefix) {
	if p.Bits() > f.maxVTEP {
		v.add(path, "%s has no room for two VTEPs; the longest is /%d", p, f.maxVTEP)
	}
}

func (v *validator) oui(path, oui string) {
	if oui == "" {
		v.add(path, "is missing; it is the first half of every VTEP's MAC, such as 70:B3:D5:00:00:00")
		return
	}
	mac, err := ParseMAC(oui)
	// ParseMAC takes other separators too; the state's readers do not.
	if err != nil || strings.Count(oui, ":") != len(mac)-1 {
		v.add(path, "%q is not of the form 70:B3:D5:00:00:00", oui)
		return
	}
	if [3]byte(mac[3:]) != [3]byte{} {
		v.add(path, "%q must end in 00:00:00; the VTEP's address is put there", oui)
	}
	if mac[0]&1 != 0 {
		v.add(path, "%q is a group address; its first byte must be even", oui)
	}
}
