// Package api is the coordinator's own HTTP interface as data: bodies of
// requests and answers, stream events, and errors. /overlay-master/state, the
// shape that DC/OS's tools know, is package masterstate.
package api

import (
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Paths of the calls. {ip} is the agent's underlay address.
const (
	PathState        = "/overlay-master/state"
	PathAgentsDelete = "/overlay-master/agents/delete"
	PathAgents       = "/v1/agents"
	PathOverlays     = "/v1/overlays"
	// PathLease is the path of one agent's lease, with {ip} to be filled in.
	PathLease = "/v1/agents/{ip}/lease"
	// PathStatus is the path of one agent's status, with {ip} to be filled in.
	PathStatus = "/v1/agents/{ip}/status"
)

// DefaultPort is the coordinator's TCP port.
const DefaultPort = 64001

// ClaimRequest is the body of PUT /v1/agents/{ip}/lease. Asking again is
// harmless: what the agent holds already is what it is answered.
type ClaimRequest struct {
	ID string `json:"id"`
	// Overlays are the names of those that a subnet is wanted of; with none
	// of them, and AllOverlays false, the claim is for a VTEP alone.
	Overlays []string `json:"overlays,omitempty"`
	// AllOverlays asks for a subnet of every overlay that is enabled.
	AllOverlays bool `json:"all_overlays,omitempty"`
	// NetworkConfig replaces the recorded one; absent, that one stays.
	NetworkConfig *lease.NetworkConfig `json:"network_config,omitempty"`
}

// ClaimResponse answers a claim.
type ClaimResponse struct {
	Agent   lease.Agent     `json:"agent"`
	Network network.Network `json:"network"`
	// Revision is etcd's, at which Agent and Network are true.
	Revision int64 `json:"revision"`
}

// AgentsResponse answers GET /v1/agents without watch.
type AgentsResponse struct {
	Agents   []lease.Agent   `json:"agents"`
	Network  network.Network `json:"network"`
	Revision int64           `json:"revision"`
}

// StatusRequest is the body of PUT /v1/agents/{ip}/status: the agent's word on
// its overlays, and its heartbeat.
type StatusRequest struct {
	ID       string          `json:"id,omitempty"`
	Overlays []OverlayStatus `json:"overlays"`
}

// OverlayStatus is one overlay's part of a StatusRequest.
type OverlayStatus struct {
	Name      string      `json:"name"`
	State     lease.State `json:"state"`
	Addresses Addresses   `json:"addresses,omitzero"`
}

// Addresses counts the addresses of both containerizers on one agent.
type Addresses struct {
	Mesos  *Usage `json:"mesos,omitempty"`
	Docker *Usage `json:"docker,omitempty"`
}

// Usage counts addresses of one subnet side.
type Usage struct {
	Used int64 `json:"used"`
	// Free saturates at the largest int64 for wide IPv6 subnets.
	Free int64 `json:"free"`
}

// EventType tells what an Event is.
type EventType string

const (
	// EventSnapshot begins a whole picture: forget all that came before.
	EventSnapshot EventType = "snapshot"
	// EventNetwork carries Network: the configuration as it is now.
	EventNetwork EventType = "network"
	// EventSet carries Agent: a new or changed record.
	EventSet EventType = "set"
	// EventDelete carries IP: that record is gone.
	EventDelete EventType = "delete"
	// EventSynced says that the reader now knows all there is. One comes
	// after the snapshot, or after what was missed since a resume.
	EventSynced EventType = "synced"
	// EventPing keeps the connection and the reader's deadline alive.
	EventPing EventType = "ping"
)

// Event is one line of GET /v1/agents?watch=true&since=R. Since R the
// revision of the last event read, the stream goes on after it; without it, or
// where R is too old to go on from, it begins with EventSnapshot.
type Event struct {
	Type     EventType        `json:"type"`
	Revision int64            `json:"revision"`
	Network  *network.Network `json:"network,omitempty"`
	Agent    *lease.Agent     `json:"agent,omitempty"`
	IP       netip.Addr       `json:"ip,omitzero"`
}

// Code classifies an Error for programs.
type Code string

const (
	CodeInvalid      Code = "invalid"       // 400: the request is malformed
	CodeForbidden    Code = "forbidden"     // 403: not this caller's to do
	CodeNotFound     Code = "not_found"     // 404: no such overlay or agent
	CodeConflict     Code = "conflict"      // 409: clashes with what is stored
	CodeDisabled     Code = "disabled"      // 409: the overlay is not enabled
	CodeExhausted    Code = "exhausted"     // 409: nothing left to lease
	CodeTooLarge     Code = "too_large"     // 413: the body is too long
	CodeUnavailable  Code = "unavailable"   // 503: etcd can't be reached
	CodeInternal     Code = "internal"      // 500: a fault of the coordinator
	CodeNotSupported Code = "not_supported" // 405: no such method here
)

// Error is the answer of a call that failed. It is an error.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// Status is the HTTP status; it is not part of the body.
	Status int `json:"-"`
}

// ErrorBody is the JSON around an Error.
type ErrorBody struct {
	Error *Error `json:"error"`
}

func (e *Error) Error() string { return e.Message }
