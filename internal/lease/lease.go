// Package lease is what the coordinator grants to an agent and the agent
// keeps: a VTEP, and for each overlay the subnets that containers on this
// agent get their addresses from. It is pure.
package lease

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/dcos/dcos-overlay/internal/network"
)

// Agent is one agent's record: what it is, and all that it holds. The
// coordinator stores it under agents/<ip> and sends it to every other agent.
type Agent struct {
	// ID is made by the agent once. An agent whose IP changes is known by it.
	ID string `json:"id"`
	// IP is the underlay address: where other agents send VXLAN packets to.
	IP       netip.Addr    `json:"ip"`
	VTEP     VTEP          `json:"vtep"`
	Config   NetworkConfig `json:"network_config"`
	Overlays []Overlay     `json:"overlays,omitempty"`
}

// VTEP is the agent's end of the VXLAN tunnels. The addresses carry the
// lengths of the pools that they come from.
type VTEP struct {
	IP  netip.Prefix `json:"ip"`
	IP6 netip.Prefix `json:"ip6,omitzero"`
	MAC network.MAC  `json:"mac"`
}

// Overlay is what an agent holds of one overlay. The first subnet of a family
// is the one that Mesos and Docker share; any further one is Mesos's whole.
type Overlay struct {
	Name     string         `json:"name"`
	Subnets  []netip.Prefix `json:"subnets,omitempty"`
	Subnets6 []netip.Prefix `json:"subnets6,omitempty"`
	// Addresses are fixed ones, each held for one container of this agent. They
	// are no part of its subnets, and every other agent has a route to each.
	Addresses []Address `json:"addresses,omitempty"`
	// Split is how the first subnets are split. It was decided with the claim,
	// and stays while they are held: containers live in both parts.
	Split Split `json:"split,omitzero"`
	State State `json:"state"`
}

// Address is a fixed address of a container.
type Address struct {
	IP        netip.Addr `json:"ip"`
	Container string     `json:"container"`
	Interface string     `json:"interface"`
}

// Fixed tells whether o has the fixed address ip for that container.
func (o Overlay) Fixed(ip netip.Addr, container, ifName string) bool {
	return slices.Contains(o.Addresses, Address{ip, container, ifName})
}

// SetAddress makes a one of o's fixed addresses, in the place of whoever had
// it on this agent.
func (o *Overlay) SetAddress(a Address) {
	o.DropAddress(a.IP)
	o.Addresses = append(o.Addresses, a)
	slices.SortFunc(o.Addresses, func(x, y Address) int { return x.IP.Compare(y.IP) })
}

// DropAddress takes a fixed address from o, if it has it.
func (o *Overlay) DropAddress(ip netip.Addr) {
	o.Addresses = slices.DeleteFunc(o.Addresses, func(a Address) bool { return a.IP == ip })
	if len(o.Addresses) == 0 {
		o.Addresses = nil
	}
}

// Split says how an agent's first subnet of an overlay is divided between
// Mesos and Docker. The zero value is DC/OS's halves.
type Split struct {
	// DockerPrefix and DockerPrefix6 are the length of Docker's part; 0 means
	// a half.
	DockerPrefix  int `json:"docker_prefix,omitempty"`
	DockerPrefix6 int `json:"docker_prefix6,omitempty"`
	// Whole: Mesos has all of it, and Docker nothing.
	Whole bool `json:"whole,omitempty"`
}

// State is an agent's own word on one overlay.
type State struct {
	Status Status `json:"status"`
	// Error says why, when Status is StatusFailed or StatusInvalid.
	Error string `json:"error,omitempty"`
}

// Status is one of DC/OS's words for how far an overlay is on an agent.
type Status string

const (
	StatusOK          Status = "STATUS_OK"
	StatusFailed      Status = "STATUS_FAILED"
	StatusConfiguring Status = "STATUS_CONFIGURING"
	StatusInvalid     Status = "STATUS_INVALID"
)

// Valid tells whether s is one of the four.
func (s Status) Valid() bool {
	switch s {
	case StatusOK, StatusFailed, StatusConfiguring, StatusInvalid:
		return true
	}
	return false
}

// NetworkConfig is what an agent wants of the overlays: agent.json's object of
// the same name. A field that is absent in JSON is true, or 0 for the MTU.
type NetworkConfig struct {
	// AllocateSubnet: without it the agent gets a VTEP, and no subnets.
	AllocateSubnet bool `json:"allocate_subnet"`
	MesosBridge    bool `json:"mesos_bridge"`
	DockerBridge   bool `json:"docker_bridge"`
	// OverlayMTU is the MTU of containers in bytes; 0 means the underlay's
	// less the overhead of VXLAN.
	OverlayMTU int  `json:"overlay_mtu,omitempty"`
	EnableIPv6 bool `json:"enable_ipv6"`
	// KeepHalves false: without a Docker bridge Mesos gets the whole of the
	// subnets that are claimed, and not only DC/OS's half.
	KeepHalves bool `json:"keep_halves"`
}

// DefaultNetworkConfig is what an absent network_config means.
func DefaultNetworkConfig() NetworkConfig {
	return NetworkConfig{AllocateSubnet: true, MesosBridge: true, DockerBridge: true, EnableIPv6: true, KeepHalves: true}
}

// UnmarshalJSON fills in the defaults; it refuses unknown fields.
func (c *NetworkConfig) UnmarshalJSON(b []byte) error {
	type plain NetworkConfig
	p := plain(DefaultNetworkConfig())
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return err
	}
	*c = NetworkConfig(p)
	return nil
}

// Overlay returns what a holds of the overlay called name, or nil.
func (a *Agent) Overlay(name string) *Overlay {
	for i := range a.Overlays {
		if a.Overlays[i].Name == name {
			return &a.Overlays[i]
		}
	}
	return nil
}

// AllSubnets are the subnets of both families.
func (o Overlay) AllSubnets() []netip.Prefix { return slices.Concat(o.Subnets, o.Subnets6) }

// Destinations are what of the overlay is reached at the agent: its subnets,
// and its fixed addresses one by one.
func (o Overlay) Destinations() []netip.Prefix {
	out := o.AllSubnets()
	for i := range out {
		out[i] = out[i].Masked()
	}
	for _, a := range o.Addresses {
		out = append(out, netip.PrefixFrom(a.IP, a.IP.BitLen()))
	}
	return out
}

// ExtraSubnets are the subnets of both families beside the first ones.
func (o Overlay) ExtraSubnets() []netip.Prefix {
	return slices.Concat(o.Subnets[min(1, len(o.Subnets)):], o.Subnets6[min(1, len(o.Subnets6)):])
}

// Side is one containerizer's part of the subnets that an agent holds of one
// overlay, in one family: its part of the first subnet, then further subnets
// whole.
type Side []netip.Prefix

// MesosSide is what Mesos containers get their addresses from, IPv4 first.
func (o Overlay) MesosSide() (v4, v6 Side) {
	return o.Split.mesos(o.Subnets, o.Split.DockerPrefix), o.Split.mesos(o.Subnets6, o.Split.DockerPrefix6)
}

func (s Split) mesos(subnets []netip.Prefix, dockerBits int) Side {
	if len(subnets) == 0 || s.Whole {
		return slices.Clone(subnets)
	}
	mesos, _ := network.Split(subnets[0], dockerBits)
	return append(mesos, subnets[1:]...)
}

// DockerSide is the part of the Docker network; the zero Prefix where the
// overlay lacks the family, or where Mesos has all.
func (o Overlay) DockerSide() (v4, v6 netip.Prefix) {
	return o.Split.docker(o.Subnets, o.Split.DockerPrefix), o.Split.docker(o.Subnets6, o.Split.DockerPrefix6)
}

func (s Split) docker(subnets []netip.Prefix, dockerBits int) netip.Prefix {
	if len(subnets) == 0 || s.Whole {
		return netip.Prefix{}
	}
	_, docker := network.Split(subnets[0], dockerBits)
	return docker
}

// Clone copies a so deeply that changing the copy leaves a as it is.
func (a *Agent) Clone() *Agent {
	c := *a
	c.Overlays = slices.Clone(a.Overlays)
	for i := range c.Overlays {
		c.Overlays[i].Subnets = slices.Clone(c.Overlays[i].Subnets)
		c.Overlays[i].Subnets6 = slices.Clone(c.Overlays[i].Subnets6)
		c.Overlays[i].Addresses = slices.Clone(c.Overlays[i].Addresses)
	}
	return &c
}

// WithoutIPv6 is a copy of a less all that is of IPv6 in its overlays and its
// VTEP; overlays of which nothing is left are left out.
func (a *Agent) WithoutIPv6() *Agent {
	c := a.Clone()
	c.VTEP.IP6 = netip.Prefix{}
	for i := range c.Overlays {
		o := &c.Overlays[i]
		o.Subnets6 = nil
		o.Addresses = slices.DeleteFunc(o.Addresses, func(a Address) bool { return a.IP.Is6() })
	}
	c.Overlays = slices.DeleteFunc(c.Overlays, func(o Overlay) bool { return len(o.Subnets)+len(o.Addresses) == 0 })
	return c
}
