// Package masterstate is the shape of DC/OS's /overlay-master/state, which
// operators' tools read. Absent fields are absent, never null.
package masterstate

import (
	"encoding/json"
	"errors"
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// State is the whole answer.
type State struct {
	Agents  []Agent         `json:"agents"`
	Network network.Network `json:"network"`
}

// Agent is one agent's entry; the companion's /overlay-agent/overlay is one.
type Agent struct {
	IP       netip.Addr `json:"ip"`
	Overlays []Overlay  `json:"overlays"`
}

// Overlay is one overlay on one agent.
type Overlay struct {
	Info    network.Overlay `json:"info"`
	Subnet  netip.Prefix    `json:"subnet,omitzero"`
	Subnet6 netip.Prefix    `json:"subnet6,omitzero"`
	// ExtraSubnets are those that the agent holds beside, for Mesos alone.
	// DC/OS has no such thing.
	ExtraSubnets []netip.Prefix `json:"extra_subnets,omitempty"`
	MesosBridge  *Bridge        `json:"mesos_bridge,omitempty"`
	DockerBridge *Bridge        `json:"docker_bridge,omitempty"`
	Backend      Backend        `json:"backend"`
	State        lease.State    `json:"state"`
}

// Bridge is a containerizer's side: the half that it hands out, not the
// bridge's own address.
type Bridge struct {
	Name string       `json:"name"`
	IP   netip.Prefix `json:"ip,omitzero"`
	IP6  netip.Prefix `json:"ip6,omitzero"`
}

// Backend is how the overlay's packets travel.
type Backend struct {
	VXLAN VXLAN `json:"vxlan"`
}

// VXLAN is the agent's VTEP.
type VXLAN struct {
	VNI      int          `json:"vni"`
	VTEPIP   netip.Prefix `json:"vtep_ip"`
	VTEPIP6  netip.Prefix `json:"vtep_ip6,omitzero"`
	VTEPMAC  network.MAC  `json:"vtep_mac"`
	VTEPName string       `json:"vtep_name"`
	VTEPMTU  int          `json:"vtep_mtu,omitempty"`
}

// Entry shows an agent's record the way DC/OS does.
func Entry(a *lease.Agent, n *network.Network) Agent {
	e := Agent{IP: a.IP, Overlays: make([]Overlay, 0, len(a.Overlays))}
	for _, held := range a.Overlays {
		info, ok := n.Overlay(held.Name)
		if !ok {
			info = network.Overlay{Name: held.Name}
		}
		o := Overlay{
			Info: info,
			Backend: Backend{VXLAN: VXLAN{
				VNI:      network.VNI,
				VTEPIP:   a.VTEP.IP,
				VTEPIP6:  a.VTEP.IP6,
				VTEPMAC:  a.VTEP.MAC,
				VTEPName: network.VTEPName,
				VTEPMTU:  n.VTEPMTU,
			}},
			State: held.State,
		}
		if len(held.Subnets) > 0 {
			o.Subnet = held.Subnets[0]
		}
		if len(held.Subnets6) > 0 {
			o.Subnet6 = held.Subnets6[0]
		}
		o.ExtraSubnets = held.ExtraSubnets()
		if a.Config.MesosBridge {
			o.MesosBridge = &Bridge{Name: info.MesosBridge()}
			v4, v6 := held.MesosSide()
			o.MesosBridge.IP, o.MesosBridge.IP6 = first(v4), first(v6)
		}
		if a.Config.DockerBridge {
			o.DockerBridge = &Bridge{Name: info.DockerBridge()}
			o.DockerBridge.IP, o.DockerBridge.IP6 = held.DockerSide()
		}
		e.Overlays = append(e.Overlays, o)
	}
	return e
}

func first(s lease.Side) netip.Prefix {
	if len(s) == 0 {
		return netip.Prefix{}
	}
	return s[0]
}

// Parse reads a state, which may have fields that are not known here: DC/OS's
// versions differ. What has no list of agents is not one.
func Parse(data []byte) (State, error) {
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, err
	}
	if s.Agents == nil {
		return State{}, errors.New("it has no agents")
	}
	return s, nil
}
