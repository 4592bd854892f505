package api

import (
	"net/netip"
	"time"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// PathOverview is what the page reads: the cluster in figures, and of the
// agents those that are asked for.
const PathOverview = "/v1/overview"

// AgentState is an agent in one word.
type AgentState string

const (
	// AgentFailed: it reports, and one overlay at least does not work on it.
	AgentFailed AgentState = "failed"
	// AgentSilent: it has not reported lately, or never yet.
	AgentSilent AgentState = "silent"
	// AgentConfiguring: it reports, and is not done yet with one overlay.
	AgentConfiguring AgentState = "configuring"
	// AgentOK: it reports, and all that it holds works.
	AgentOK AgentState = "ok"
)

// AgentOrder is what the agents of an Overview are sorted by.
type AgentOrder string

const (
	OrderIP    AgentOrder = "ip"
	OrderState AgentOrder = "state"
	OrderVTEP  AgentOrder = "vtep"
	OrderUse   AgentOrder = "use"
)

// Overview answers GET /v1/overview.
type Overview struct {
	// Epoch and Revision are where the stream of agents goes on from.
	Epoch    string `json:"epoch"`
	Revision int64  `json:"revision"`
	// Now is the coordinator's clock, which its times are to be compared with.
	Now      time.Time `json:"now"`
	Overlays []Overlay `json:"overlays"`
	VTEPs    VTEPs     `json:"vteps"`
	// Total counts all agents, and States those that fit everything that was
	// asked but the state.
	Total  int                `json:"total"`
	States map[AgentState]int `json:"states"`
	// Matching counts the agents that fit, of which Agents are those from
	// Offset on.
	Matching int             `json:"matching"`
	Offset   int             `json:"offset"`
	Agents   []OverviewAgent `json:"agents"`
}

// VTEPs are the ranges that VTEP addresses come from, and how much of them is
// used.
type VTEPs struct {
	Subnet     netip.Prefix `json:"subnet"`
	Addresses  *Units       `json:"addresses,omitempty"`
	Subnet6    netip.Prefix `json:"subnet6,omitzero"`
	Addresses6 *Units       `json:"addresses6,omitempty"`
}

// Units counts what an address space is cut into.
type Units struct {
	Leased  int `json:"leased"`
	Resting int `json:"resting"`
	// Free is no integer: an IPv6 space has more than one can count.
	Free float64 `json:"free"`
}

// OverviewAgent is one agent in short.
type OverviewAgent struct {
	IP    netip.Addr `json:"ip"`
	State AgentState `json:"state"`
	// Overlay is the one that State is about, and Reason what the agent says
	// of it, where it is not well.
	Overlay string `json:"overlay,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// SilentSince is since when it is known that reports are missing; zero for
	// an agent that has not been heard of yet.
	SilentSince time.Time    `json:"silent_since,omitzero"`
	VTEP        netip.Prefix `json:"vtep"`
	VTEP6       netip.Prefix `json:"vtep6,omitzero"`
	MAC         network.MAC  `json:"mac"`
	// Overlays are what it holds.
	Overlays []lease.Overlay `json:"overlays,omitempty"`
	// Fullest is the containerizer's part with the greatest share of its
	// addresses in use; nil where nothing is known.
	Fullest *Part `json:"fullest,omitempty"`
}

// Part is one containerizer's part of what an agent holds of one overlay.
type Part struct {
	Overlay       string `json:"overlay"`
	Containerizer string `json:"containerizer"` // mesos or docker
	Usage
}
