// Package cnierror gives an error the code that the CNI specification, or our
// documentation, has for it. What it makes is the one line that the user of a
// framework sees of a failed task.
package cnierror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/delegate"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/portmap"
)

// Codes from 100 on are a plugin's own.
const (
	// CodeNoAddress: this agent's addresses of the overlay are all in use.
	CodeNoAddress uint = 100
	// CodeNoSubnet: the coordinator has no subnet or VTEP left to lease.
	CodeNoSubnet uint = 101
	// CodeRefused: the coordinator refused: no such overlay, or not enabled,
	// or not this agent's to claim.
	CodeRefused uint = 102
	// CodeDuplicate: this container has such an interface already.
	CodeDuplicate uint = 103
	// CodeAddress: the address that was asked for can't be given.
	CodeAddress uint = 104
	// CodeChanged: CHECK found something not as ADD has made it.
	CodeChanged uint = 105
	// CodePortMapping: ports of the host can't be mapped, or unmapped.
	CodePortMapping uint = 106
	// CodeIPAM: the IPAM plugin that ipam.type names has failed.
	CodeIPAM uint = 107
)

// New is an error that is err with a code.
func New(code uint, err error) error { return &coded{code, err} }

// coded is an error whose code is known where it is made.
type coded struct {
	code uint
	error
}

func (c *coded) Unwrap() error { return c.error }

// Of is err, which is what went wrong in verb on the overlay, as the plugin
// has to print it: on one line, with what other programs said about it in
// details. It is nil for nil. An error of the specification is of the
// configuration, which may not name an overlay.
func Of(verb, overlay string, err error) error {
	if err == nil {
		return nil
	}
	if asIs, ok := err.(*types.Error); ok {
		// Status has been here before.
		text := strings.TrimPrefix(oneLine(asIs.Msg), verb+": ")
		return types.NewError(asIs.Code, verb+": "+text, details(err))
	}
	text := oneLine(err.Error()) + remedy(err, os.Geteuid())
	return types.NewError(code(err), verb+": "+of(overlay, text), details(err))
}

// details is what is too long for a task's failure message.
func details(err error) string {
	var printable *types.Error
	var failed *delegate.Failure
	switch {
	case errors.As(err, &failed):
		return cut(oneLine(failed.Details))
	case errors.As(err, &printable):
		return cut(oneLine(printable.Details))
	}
	return ""
}

// maxDetails bounds what is passed on of another program's words, in bytes.
const maxDetails = 8 << 10

func cut(text string) string {
	if len(text) > maxDetails {
		return strings.ToValidUTF8(text[:maxDetails], "") + " …"
	}
	return text
}

// of is text with the overlay that it is about.
func of(overlay, text string) string {
	if strings.HasPrefix(text, "overlay ") {
		return text
	}
	return "overlay " + overlay + ": " + text
}

// Status is err as STATUS has to print it: the overlay takes no containers;
// and if limited is set, those that are on it may not reach all either.
func Status(overlay string, err error, limited bool) error {
	if err == nil {
		return nil
	}
	c := types.ErrPluginNotAvailable
	if limited {
		c = types.ErrLimitedConnectivity
	}
	return types.NewError(c, "STATUS: "+of(overlay, oneLine(err.Error())+remedy(err, os.Geteuid())), details(err))
}

// Run is the error of a plugin's whole run, as it has to be printed: what the
// library finds wrong before the verb begins names neither that nor what to do.
func Run(verb string, err *types.Error) *types.Error {
	if err == nil || strings.HasPrefix(err.Msg, verb+": ") {
		return err
	}
	text := verb + ": " + oneLine(err.Msg)
	switch err.Code {
	case types.ErrInvalidEnvironmentVariables:
		text += ": a container runtime sets the variables of the CNI specification; by hand, use cnitool"
	case types.ErrDecodingFailure, types.ErrIOFailure:
		text += ": the standard input has to be one plugin's configuration, an object of JSON"
	}
	return types.NewError(err.Code, text, err.Details)
}

// remedy is what to do about errors of files, wherever they come from.
func remedy(err error, user int) string {
	switch {
	case full(err):
		return ": make room on that file system"
	case errors.Is(err, syscall.EROFS) && !strings.Contains(err.Error(), "sysctl -w"):
		return ": make that file system writable"
	case errors.Is(err, fs.ErrPermission) && user != 0:
		return fmt.Sprintf(": run it as root, and not as user %d", user)
	}
	return ""
}

// full tells whether a file system had no room for a file, or may have none of
// this user's.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func oneLine(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}

func code(err error) uint {
	var known *coded
	var exhausted *ipam.ExhaustedError
	var duplicate *ipam.DuplicateError
	var request *ipam.RequestError
	var unmapped *portmap.NotFoundError
	var refused *api.Error
	var printable *types.Error
	switch {
	case errors.As(err, &known):
		return known.code
	case errors.Is(err, api.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return types.ErrTryAgainLater
	case errors.As(err, &exhausted):
		return CodeNoAddress
	case errors.As(err, &duplicate):
		return CodeDuplicate
	case errors.As(err, &request):
		return CodeAddress
	case errors.As(err, &unmapped):
		return CodePortMapping
	case errors.As(err, &refused):
		if refused.Code == api.CodeExhausted {
			return CodeNoSubnet
		}
		return CodeRefused
	case errors.As(err, &printable):
		return printable.Code
	case full(err), errors.Is(err, syscall.EROFS):
		return types.ErrIOFailure
	}
	return types.ErrInternal
}
