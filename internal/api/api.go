// Package api is the coordinator's own HTTP interface as data: bodies of
// requests and answers, stream events, and errors. /overlay-master/state, the
// shape that DC/OS's tools know, is package masterstate.
package api

import (
	"errors"
	"net/netip"
	"time"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
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
	// PathAddress is the path of one fixed address of one agent.
	PathAddress = "/v1/agents/{ip}/addresses/{overlay}/{address}"
	// PathAddresses lists the fixed addresses of an overlay that are held.
	PathAddresses = "/v1/overlays/{name}/addresses"
	// PathReservations lists those that are kept for who carries a label, and
	// PathReservation is one of them.
	PathReservations = "/v1/overlays/{name}/reservations"
	PathReservation  = "/v1/overlays/{name}/reservations/{address}"
	// PathImport takes a state of DC/OS's.
	PathImport = "/v1/import"
)

// HeaderStale is in an answer that is read from what the coordinator knew when
// it last heard from etcd: that many seconds ago.
const HeaderStale = "X-Dcos-Overlay-Stale"

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
	// AtLeast is how many subnets are wanted of overlays, by their names; one
	// where nothing is said. Who has as many gets no more.
	AtLeast map[string]SubnetCount `json:"at_least,omitempty"`
	// NetworkConfig replaces the recorded one; absent, that one stays.
	NetworkConfig *lease.NetworkConfig `json:"network_config,omitempty"`
}

// SubnetCount counts subnets of each family.
type SubnetCount struct {
	Subnets  int `json:"subnets,omitempty"`
	Subnets6 int `json:"subnets6,omitempty"`
}

// ClaimResponse answers a claim.
type ClaimResponse struct {
	Agent   lease.Agent     `json:"agent"`
	Network network.Network `json:"network"`
	// Deleting are the overlays that are being deleted: who holds of them
	// starts no more containers on them.
	Deleting []string `json:"deleting,omitempty"`
	// Revision is etcd's, at which all of this is true.
	Revision int64 `json:"revision"`
}

// AgentsResponse answers GET /v1/agents without watch.
type AgentsResponse struct {
	Agents   []lease.Agent   `json:"agents"`
	Network  network.Network `json:"network"`
	Revision int64           `json:"revision"`
	// Status is each agent's, where the call has status=true.
	Status map[netip.Addr]AgentStatus `json:"status,omitempty"`
}

// AgentResponse answers GET /v1/agents/{ip}.
type AgentResponse struct {
	lease.Agent
	Status AgentStatus `json:"status"`
	// Entry is how DC/OS's state shows the agent, with its bridges.
	Entry masterstate.Agent `json:"entry"`
}

// AgentStatus is how an agent was when it last reported.
type AgentStatus struct {
	// Alive is true for a while after each report.
	Alive bool `json:"alive"`
	// LastSeen is the last report that reached this coordinator; zero where
	// none did, or where the agent is alive by another one's word.
	LastSeen time.Time `json:"last_seen,omitzero"`
	// SilentSince is since when it is known that reports are missing.
	SilentSince time.Time `json:"silent_since,omitzero"`
	// GoneSince is since when Mesos, which had it, has it no longer.
	GoneSince time.Time `json:"gone_since,omitzero"`
	// Addresses are the counts by overlay, and HostRoutes the host's own
	// prefixes, of an agent that is alive.
	Addresses  map[string]Addresses `json:"addresses,omitempty"`
	HostRoutes []netip.Prefix       `json:"host_routes,omitempty"`
	// Clashes are those of HostRoutes that overlap a range of the network.
	Clashes []RouteClash `json:"route_clashes,omitempty"`
}

// RouteClash is a route by which a host reaches other addresses of a range
// than the overlay's.
type RouteClash struct {
	Route netip.Prefix `json:"route"`
	// With names the ranges, as in "overlay dcos (9.0.0.0/8)".
	With []string `json:"with"`
}

// Overlay is an overlay with how far it is in its life.
type Overlay struct {
	network.Overlay
	// Deleting is true from a delete on until the last agent has given its
	// subnets back; the overlay is disabled meanwhile.
	Deleting bool `json:"deleting,omitempty"`
	// Holders counts the agents that hold subnets of it.
	Holders int `json:"holders"`
	// Subnets and Subnets6 count the agent subnets of each family.
	Subnets  *Units `json:"subnets,omitempty"`
	Subnets6 *Units `json:"subnets6,omitempty"`
}

// DeleteAgentsRequest is the body of POST /overlay-master/agents/delete.
type DeleteAgentsRequest struct {
	Agents []string `json:"agents"`
	// Force deletes agents that are alive, too.
	Force bool `json:"force,omitempty"`
}

// ImportResponse answers POST /v1/import.
type ImportResponse struct {
	// Imported counts the agents that were taken over; Unchanged those that
	// hold all that already; Empty those that held nothing.
	Imported  int `json:"imported"`
	Unchanged int `json:"unchanged"`
	Empty     int `json:"empty"`
}

// MaxHostRoutes bounds the prefixes that one host reports: they are a tenth of
// what etcd takes as a value.
const MaxHostRoutes = 4096

// StatusRequest is the body of PUT /v1/agents/{ip}/status: the agent's word on
// its overlays, and its heartbeat.
type StatusRequest struct {
	ID       string          `json:"id,omitempty"`
	Overlays []OverlayStatus `json:"overlays"`
	// HostRoutes are the prefixes that the host routes by itself, apart from
	// the overlays' and from default routes: no overlay may be made over them.
	HostRoutes []netip.Prefix `json:"host_routes,omitempty"`
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
	// EventNetwork carries Network, Deleting and Deleted: the configuration as
	// it is now.
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

// Event is one line of GET /v1/agents?watch=true&since=R&epoch=E. Since R the
// revision of the last event read, the stream goes on after it; without it, or
// where R is too old to go on from, or E is not the epoch of now, it begins
// with EventSnapshot.
type Event struct {
	Type     EventType `json:"type"`
	Revision int64     `json:"revision"`
	// Epoch, in EventSnapshot and EventSynced, names the store that revisions
	// are of: another one means that etcd began anew.
	Epoch   string           `json:"epoch,omitempty"`
	Network *network.Network `json:"network,omitempty"`
	// Deleting are the overlays of Network that are being deleted, and Deleted
	// those that were, and are not any more by an operator's will. An overlay
	// that is nowhere may have been lost with etcd's data instead.
	Deleting []string     `json:"deleting,omitempty"`
	Deleted  []string     `json:"deleted,omitempty"`
	Agent    *lease.Agent `json:"agent,omitempty"`
	IP       netip.Addr   `json:"ip,omitzero"`
}

// Code classifies an Error for programs.
type Code string

const (
	CodeInvalid Code = "invalid" // 400: the request is malformed
	// 401: no client certificate, or one that does not count
	CodeUnauthenticated Code = "unauthenticated"
	CodeForbidden       Code = "forbidden"     // 403: not this caller's to do
	CodeNotFound        Code = "not_found"     // 404: no such overlay or agent
	CodeConflict        Code = "conflict"      // 409: clashes with what is stored
	CodeDisabled        Code = "disabled"      // 409: the overlay is not enabled
	CodeExhausted       Code = "exhausted"     // 409: nothing left to lease
	CodeTooLarge        Code = "too_large"     // 413: the body is too long
	CodeUnavailable     Code = "unavailable"   // 503: etcd can't be reached
	CodeBusy            Code = "busy"          // 503: as much is open as may be
	CodeInternal        Code = "internal"      // 500: a fault of the coordinator
	CodeNotSupported    Code = "not_supported" // 405: no such method here
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

// ErrUnreachable is the cause when no coordinator gave an answer, or the ones
// that did can't serve at the moment. Trying again later may help.
var ErrUnreachable = errors.New("no coordinator answered")
