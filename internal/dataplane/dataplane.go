// Package dataplane is what the kernel of one agent should hold for the
// overlays: the VTEP, the Mesos bridges, and what leads to every other agent.
// It is pure and can be printed; package kernel applies it.
package dataplane

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// overhead4 is what VXLAN adds to a packet over IPv4, in bytes: outer IP
	// 20, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348).
	overhead4 = 50
	// overhead6 is the same over IPv6, whose header has 40 bytes.
	overhead6 = 70
)

// VTEP is this agent's VXLAN device.
type VTEP struct {
	Name string
	VNI  int
	// Port is the UDP port that it sends to and listens on.
	Port int
	// MTU is in bytes.
	MTU int
	MAC network.MAC
	// Local is the underlay address that it sends from, of either family.
	Local netip.Addr
	// Addrs are its own addresses with the lengths of the VTEP pools, so that
	// all other VTEPs are on its link.
	Addrs []netip.Prefix
	// TxOffload false turns transmit checksum offload off, for network cards
	// that compute the checksums of encapsulated packets wrongly.
	TxOffload bool
}

// VTEPOf is the VTEP of the agent self with the given MTU in bytes.
func VTEPOf(self *lease.Agent, mtu int) VTEP {
	v := VTEP{
		Name:      network.VTEPName,
		VNI:       network.VNI,
		Port:      network.VXLANPort,
		MTU:       mtu,
		MAC:       self.VTEP.MAC,
		Local:     self.IP,
		TxOffload: true,
	}
	for _, p := range []netip.Prefix{self.VTEP.IP, self.VTEP.IP6} {
		if p.IsValid() {
			v.Addrs = append(v.Addrs, p)
		}
	}
	return v
}

func (v VTEP) String() string {
	s := fmt.Sprintf("vxlan %s id %d port %d local %s mac %s mtu %d%s", v.Name, v.VNI, v.Port, v.Local, v.MAC, v.MTU, addrText(v.Addrs))
	if !v.TxOffload {
		s += " tx off"
	}
	return s
}

// Bridge is one bridge that containers are on.
type Bridge struct {
	Name string
	MAC  network.MAC
	// MTU is in bytes.
	MTU int
	// Addrs are the containers' gateways, with the lengths of their ranges.
	Addrs []netip.Prefix
}

// MesosBridgeOf is the bridge of o's Mesos containers, with the gateway of
// every range that they get addresses from. Its MAC follows from the first
// gateway; an overlay without subnets gives a bridge without either.
func MesosBridgeOf(o lease.Overlay, mtu int) Bridge {
	b := Bridge{Name: network.MesosBridgeName(o.Name), MTU: mtu}
	v4, v6 := o.MesosSide()
	for _, p := range slices.Concat(v4, v6) {
		b.Addrs = append(b.Addrs, network.Gateway(p))
	}
	if len(b.Addrs) > 0 {
		b.MAC = network.AddrMAC(b.Addrs[0].Addr())
	}
	return b
}

func (b Bridge) String() string {
	return fmt.Sprintf("bridge %s mac %s mtu %d%s", b.Name, b.MAC, b.MTU, addrText(b.Addrs))
}

func addrText(addrs []netip.Prefix) string {
	var s strings.Builder
	for _, a := range addrs {
		s.WriteString(" addr " + a.String())
	}
	return s.String()
}

// Route is where a subnet's packets go, on the VTEP.
type Route struct {
	// Gateway is the VTEP address of the agent that holds the subnet.
	Gateway netip.Addr
	// Metric is Metric of the subnet.
	Metric uint32
}

// Peers is what leads to the other agents, keyed as the kernel keys it.
type Peers struct {
	// Routes are by destination.
	Routes map[netip.Prefix]Route
	// Neighs say which MAC a VTEP address has.
	Neighs map[netip.Addr]network.MAC
	// FDB says which agent (underlay address) a VTEP's MAC is at.
	FDB map[network.MAC]netip.Addr
}

// NewPeers is Peers without any entry.
func NewPeers() Peers {
	return Peers{
		Routes: map[netip.Prefix]Route{},
		Neighs: map[netip.Addr]network.MAC{},
		FDB:    map[network.MAC]netip.Addr{},
	}
}

// PeersOf is what the agent with the underlay address self needs to reach
// every other one of agents. Of a pair of agents that claim one MAC or one
// VTEP address, self is preferred and then the one with the lower underlay
// address; the other gets nothing that would lead to the wrong host. The same
// holds for a subnet. An agent that lacks a VTEP address of one family gets no
// routes of that family, and one whose underlay is of another family than
// self's cannot be reached and is left out.
func PeersOf(self netip.Addr, agents []lease.Agent) Peers {
	order := slices.Clone(agents)
	slices.SortStableFunc(order, func(a, b lease.Agent) int {
		switch {
		case a.IP == b.IP:
			return 0
		case a.IP == self:
			return -1
		case b.IP == self:
			return 1
		}
		return a.IP.Compare(b.IP)
	})
	c := claims{
		macs:    map[network.MAC]bool{},
		addrs:   map[netip.Addr]bool{},
		subnets: map[netip.Prefix]bool{},
	}
	out := NewPeers()
	for _, a := range order {
		if a.IP.Is4() != self.Is4() || !take(c.macs, a.VTEP.MAC) {
			continue
		}
		peer := a.IP != self
		if peer {
			out.FDB[a.VTEP.MAC] = a.IP
		}
		for _, vtep := range []netip.Prefix{a.VTEP.IP, a.VTEP.IP6} {
			if !vtep.IsValid() || !take(c.addrs, vtep.Addr()) {
				continue
			}
			if peer {
				out.Neighs[vtep.Addr()] = a.VTEP.MAC
			}
			for _, o := range a.Overlays {
				for _, subnet := range o.Destinations() {
					if subnet.Addr().Is4() != vtep.Addr().Is4() || !take(c.subnets, subnet) {
						continue
					}
					if peer {
						out.Routes[subnet] = Route{Gateway: vtep.Addr(), Metric: Metric(subnet)}
					}
				}
			}
		}
	}
	return out
}

// claims is what agents seen so far hold.
type claims struct {
	macs    map[network.MAC]bool
	addrs   map[netip.Addr]bool
	subnets map[netip.Prefix]bool
}

// take claims k and tells whether it was free.
func take[K comparable](taken map[K]bool, k K) bool {
	if taken[k] {
		return false
	}
	taken[k] = true
	return true
}

// Metric is the metric of the route to subnet: a hash, the same everywhere and
// for ever, because the kernel takes the metric for part of a route's key. It
// differs between subnets because the kernel hashes routes of one device by
// it: with one metric for all of them, installing n takes n² time. It is never
// 0, which IPv6 reads as "the default", and at most 2³¹-1, because some tools
// read it as a signed number.
func Metric(subnet netip.Prefix) uint32 {
	h := fnv.New32a()
	b, _ := subnet.Masked().MarshalBinary() // fails for no prefix
	h.Write(b)
	return max(1, h.Sum32()&(1<<31-1))
}

// ContainerMTU is the MTU of everything in an overlay, in bytes: overlayMTU if
// that is set, else the underlay's less what VXLAN adds to a packet.
func ContainerMTU(overlayMTU, underlayMTU int, underlay6 bool) int {
	switch {
	case overlayMTU > 0:
		return overlayMTU
	case underlay6:
		return underlayMTU - overhead6
	}
	return underlayMTU - overhead4
}

// String lists p in the words of ip and bridge, sorted, one entry a line.
func (p Peers) String() string { return strings.Join(Diff(p, Peers{}).entries(), "\n") }
