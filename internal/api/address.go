package api

import (
	"net/netip"
	"time"
)

// AddressRequest is the body of PUT /v1/agents/{ip}/addresses/{overlay}/{address}:
// the container that is to have the fixed address. ClaimResponse answers it.
// Asking again is harmless.
type AddressRequest struct {
	ID        string `json:"id"`
	Container string `json:"container"`
	Interface string `json:"ifname"`
	// Labels are the container's, each "key" or "key=value".
	Labels []string `json:"labels,omitempty"`
}

// FixedAddress is a fixed address that a container holds.
type FixedAddress struct {
	Address   netip.Addr `json:"address"`
	Agent     netip.Addr `json:"agent"`
	Container string     `json:"container"`
	Interface string     `json:"interface"`
	// Label is the one that it was reserved for, if it was.
	Label string    `json:"label,omitempty"`
	Since time.Time `json:"since"`
}

// Reservation keeps a fixed address for containers that carry Label. It is also
// the body of PUT /v1/overlays/{name}/reservations/{address}, with Label alone.
type Reservation struct {
	Address netip.Addr `json:"address,omitzero"`
	Label   string     `json:"label"`
	Since   time.Time  `json:"since,omitzero"`
	// Holder has the address now.
	Holder *FixedAddress `json:"holder,omitempty"`
}
