// Package network is the network that an operator configures: the overlays,
// their address spaces, and the pools that VTEP addresses come from. It is
// pure: it reads no file and touches no kernel.
package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

const (
	// VNI is the VXLAN network identifier of every overlay, as in DC/OS:
	// overlays share one VTEP and are told apart by their address spaces.
	VNI = 1024
	// VTEPName is the device of that VNI.
	VTEPName = "vtep1024"
	// VXLANPort is the UDP port that VTEPs send to, as in DC/OS.
	VXLANPort = 64000
	// MaxNameLen is the longest name of an overlay in bytes: a Linux device
	// name has at most 15 (IFNAMSIZ less the terminating zero), and "m-" or
	// "d-" stands before it.
	MaxNameLen = 13
	// DefaultMaxSubnets is how many subnets of one overlay an agent may hold
	// unless the overlay says otherwise.
	DefaultMaxSubnets = 8
	// DefaultStaticTakeover is how long an agent with a fixed address must have
	// been silent before others can claim it, unless the overlay says otherwise.
	DefaultStaticTakeover = time.Minute
)

// Network is the whole of the configuration. The zero Prefix stands for an
// absent address space.
type Network struct {
	VTEPSubnet  netip.Prefix `json:"vtep_subnet"`
	VTEPSubnet6 netip.Prefix `json:"vtep_subnet6,omitzero"`
	// VTEPMACOUI gives the first three bytes of every VTEP's MAC. It is kept
	// as the operator wrote it, because the state shows it that way.
	VTEPMACOUI string `json:"vtep_mac_oui"`
	// VTEPMTU is the MTU of the VTEP in bytes; 0 leaves it to the agents.
	VTEPMTU  int       `json:"vtep_mtu,omitempty"`
	Overlays []Overlay `json:"overlays"`
}

// Overlay is one virtual network: an IPv4 space, an IPv6 space, or both, cut
// into agent subnets of the given prefix lengths.
type Overlay struct {
	Name    string       `json:"name"`
	Subnet  netip.Prefix `json:"subnet,omitzero"`
	Prefix  int          `json:"prefix,omitempty"`
	Subnet6 netip.Prefix `json:"subnet6,omitzero"`
	Prefix6 int          `json:"prefix6,omitempty"`
	// Enabled is nil or true for an overlay that subnets are leased from.
	Enabled *bool `json:"enabled,omitempty"`
	// MaxSubnets is how many subnets of each family one agent may hold, when
	// its Mesos containers need more than the first has; 0 means
	// DefaultMaxSubnets, and 1 that nobody gets more.
	MaxSubnets int `json:"max_subnets,omitempty"`
	// DockerPrefix and DockerPrefix6 are the length of the Docker network's
	// part of an agent's first subnet; 0 means a half.
	DockerPrefix  int `json:"docker_prefix,omitempty"`
	DockerPrefix6 int `json:"docker_prefix6,omitempty"`
	// Isolated: its containers and those of other overlays do not reach each
	// other. Hosts and the outside are reached as ever.
	Isolated bool `json:"isolated,omitempty"`
	// StaticSubnet and StaticSubnet6 are parts of the spaces that no agent
	// leases: their addresses are claimed one by one, and go where the
	// container goes that asks for them.
	StaticSubnet  netip.Prefix `json:"static_subnet,omitzero"`
	StaticSubnet6 netip.Prefix `json:"static_subnet6,omitzero"`
	// StaticTakeover is how long an agent must have been silent before others
	// can claim the fixed addresses that it holds; 0 means
	// DefaultStaticTakeover.
	StaticTakeover Duration `json:"static_takeover,omitempty"`
}

// IsEnabled tells whether subnets may be leased from o.
func (o Overlay) IsEnabled() bool { return o.Enabled == nil || *o.Enabled }

// SubnetLimit is how many subnets of each family one agent may hold.
func (o Overlay) SubnetLimit() int { return cmp.Or(o.MaxSubnets, DefaultMaxSubnets) }

// Static is the part of o's space, of one address family, that fixed addresses
// are of; the zero Prefix where there is none.
func (o Overlay) Static(v6 bool) netip.Prefix {
	if v6 {
		return o.StaticSubnet6
	}
	return o.StaticSubnet
}

// Statics are the parts of o's spaces that fixed addresses are of.
func (o Overlay) Statics() (out []netip.Prefix) {
	for _, p := range []netip.Prefix{o.StaticSubnet, o.StaticSubnet6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// IsStatic tells whether a is a fixed address of o.
func (o Overlay) IsStatic(a netip.Addr) bool { return o.Static(a.Is6()).Contains(a) }

// Takeover is how long an agent must have been silent before others can claim
// the fixed addresses that it holds.
func (o Overlay) Takeover() time.Duration {
	return cmp.Or(time.Duration(o.StaticTakeover), DefaultStaticTakeover)
}

// MesosBridge is the name of the bridge that o's Mesos containers are on.
func (o Overlay) MesosBridge() string { return MesosBridgeName(o.Name) }

// DockerBridge is the name of the bridge that o's Docker containers are on.
func (o Overlay) DockerBridge() string { return DockerBridgeName(o.Name) }

// MesosBridgeName is the name of the Mesos bridge of the overlay called name.
func MesosBridgeName(name string) string { return "m-" + name }

// DockerBridgeName is the name of the Docker bridge of the overlay called name.
func DockerBridgeName(name string) string { return "d-" + name }

// Overlay returns the overlay called name, and whether there is one.
func (n Network) Overlay(name string) (Overlay, bool) {
	for _, o := range n.Overlays {
		if o.Name == name {
			return o, true
		}
	}
	return Overlay{}, false
}

// Spaces are all address ranges inside which traffic is overlay traffic: the
// overlays' and the VTEPs', of the one family. Traffic between two of them is
// never masqueraded.
func (n Network) Spaces(v6 bool) []netip.Prefix {
	var out []netip.Prefix
	add := func(p netip.Prefix) {
		if p.IsValid() && p.Addr().Is6() == v6 {
			out = append(out, p.Masked())
		}
	}
	for _, o := range n.Overlays {
		add(o.Subnet)
		add(o.Subnet6)
	}
	add(n.VTEPSubnet)
	add(n.VTEPSubnet6)
	return out
}

// WithoutIPv6 is a copy of n less all that is of IPv6; overlays of which nothing
// is left are left out.
func (n Network) WithoutIPv6() Network {
	overlays := n.Overlays
	n.VTEPSubnet6, n.Overlays = netip.Prefix{}, nil
	for _, o := range overlays {
		o.Subnet6, o.Prefix6, o.DockerPrefix6, o.StaticSubnet6 = netip.Prefix{}, 0, 0, netip.Prefix{}
		if o.Subnet.IsValid() {
			n.Overlays = append(n.Overlays, o)
		}
	}
	return n
}

// Split cuts an agent's subnet in two: the last part of the length dockerBits
// for the Docker bridge, the rest, as the fewest prefixes, largest first, for
// the Mesos bridge. dockerBits is longer than p; 0 means halves.
func Split(p netip.Prefix, dockerBits int) (mesos []netip.Prefix, docker netip.Prefix) {
	lower, docker := Halves(p)
	mesos = append(mesos, lower)
	for docker.Bits() < dockerBits {
		lower, docker = Halves(docker)
		mesos = append(mesos, lower)
	}
	return mesos, docker
}

// Halves cuts an agent's subnet in two: the lower half for the Mesos bridge,
// the upper one for the Docker bridge. p must be short enough to halve.
func Halves(p netip.Prefix) (mesos, docker netip.Prefix) {
	bits := p.Bits() + 1
	mesos = netip.PrefixFrom(p.Masked().Addr(), bits)
	b := mesos.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	upper, _ := netip.AddrFromSlice(b)
	return mesos, netip.PrefixFrom(upper, bits)
}

// Gateway is the first host address of p, written with p's length: what the
// bridge on p holds and its containers route through.
func Gateway(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Masked().Addr().Next(), p.Bits())
}

// VTEPMAC is the MAC of the VTEP with the IPv4 address ip: the OUI's first
// three bytes, then the last 24 bits of ip.
func (n Network) VTEPMAC(ip netip.Addr) (MAC, error) {
	mac, err := ParseMAC(n.VTEPMACOUI)
	if err != nil {
		return MAC{}, fmt.Errorf("vtep_mac_oui: %w", err)
	}
	b := ip.As4()
	copy(mac[3:], b[1:])
	return mac, nil
}
