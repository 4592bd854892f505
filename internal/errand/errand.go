// Package errand has another program ask the coordinators: the plugins are
// started for each container and ask seldom, and so are not linked with HTTP
// and TLS, whose initialisation each start would pay for.
//
// The program reads JSON values, Options and then any number of Requests, and
// answers each of them with an Answer, in turn. It ends with its input, and so
// with who started it.
package errand

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/api"
)

// Program is the name of the program that does errands.
const Program = "dcos-overlay-call"

// Options say which coordinators are asked, and as whom.
type Options struct {
	Masters  []string   `json:"masters"`
	LocalIP  netip.Addr `json:"local_ip"`
	CAFile   string     `json:"ca_file,omitempty"`
	CertFile string     `json:"cert_file,omitempty"`
	KeyFile  string     `json:"key_file,omitempty"`
}

// Call names what is asked.
type Call string

// The calls.
const (
	CallClaim  Call = "claim"
	CallReport Call = "report"
	// The body of both is an api.AddressRequest.
	CallClaimAddress   Call = "claim_address"
	CallReleaseAddress Call = "release_address"
	CallAgents         Call = "agents"
	CallOverlay        Call = "overlay"
	CallOverlayStatus  Call = "overlay_status"
)

// Request is one call.
type Request struct {
	Call Call `json:"call"`
	// IP is the agent of a claim, release or report, Overlay what an overlay's
	// call is about, Address which fixed address.
	IP      netip.Addr `json:"ip,omitzero"`
	Overlay string     `json:"overlay,omitempty"`
	Address netip.Addr `json:"address,omitzero"`
	// Body is that of the coordinator's call, if it has one.
	Body json.RawMessage `json:"body,omitempty"`
	// TimeoutMS is how long the call may take, in milliseconds.
	TimeoutMS int64 `json:"timeout_ms"`
}

// Kind says what an error is, for those who ask with errors.Is and errors.As.
type Kind string

// The kinds of errors.
const (
	KindRefused     Kind = "refused" // api.Error
	KindUnreachable Kind = "unreachable"
	KindLate        Kind = "late" // context.DeadlineExceeded
	KindOther       Kind = "other"
)

// Answer is how a call, or making use of Options, went.
type Answer struct {
	// Kind is empty where all went well; the call's result, if it has any, is
	// the JSON value that follows.
	Kind    Kind     `json:"kind,omitempty"`
	Code    api.Code `json:"code,omitempty"`
	Status  int      `json:"status,omitempty"`
	Message string   `json:"message,omitempty"`
}

// answerOf is the answer that err becomes.
func answerOf(err error) Answer {
	var refused *api.Error
	switch {
	case err == nil:
		return Answer{}
	case errors.Is(err, api.ErrUnreachable):
		return Answer{Kind: KindUnreachable, Message: err.Error()}
	case errors.As(err, &refused):
		return Answer{Kind: KindRefused, Code: refused.Code, Status: refused.Status, Message: refused.Message}
	case errors.Is(err, context.DeadlineExceeded):
		return Answer{Kind: KindLate, Message: err.Error()}
	}
	return Answer{Kind: KindOther, Message: err.Error()}
}

// err is the error that the answer was made of, in the same words.
func (a Answer) err() error {
	switch a.Kind {
	case "":
		return nil
	case KindUnreachable:
		return &told{a.Message, api.ErrUnreachable}
	case KindRefused:
		return &api.Error{Code: a.Code, Status: a.Status, Message: a.Message}
	case KindLate:
		return &told{a.Message, context.DeadlineExceeded}
	}
	return errors.New(a.Message)
}

// told is an error of the other process.
type told struct {
	text string
	is   error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.is }
