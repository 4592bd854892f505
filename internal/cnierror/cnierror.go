// Package cnierror gives an error the code that the CNI specification, or our
// documentation, has for it. What it makes is the one line that the user of a
// framework sees of a failed task.
package cnierror

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/ipam"
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
)

// Of wraps err, which is what went wrong in verb on the overlay. It is nil for
// nil, and err itself where that has a code.
func Of(verb, overlay string, err error) error {
	if err == nil {
		return nil
	}
	var coded *types.Error
	if errors.As(err, &coded) {
		return coded
	}
	// A task's failure message is one line; errors.Join makes several.
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if !strings.HasPrefix(text, "overlay ") {
		text = "overlay " + overlay + ": " + text
	}
	return types.NewError(code(err), fmt.Sprintf("%s: %s", verb, text), "")
}

func code(err error) uint {
	var exhausted *ipam.ExhaustedError
	var duplicate *ipam.DuplicateError
	var request *ipam.RequestError
	var refused *api.Error
	switch {
	case errors.Is(err, apiclient.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return types.ErrTryAgainLater
	case errors.As(err, &exhausted):
		return CodeNoAddress
	case errors.As(err, &duplicate):
		return CodeDuplicate
	case errors.As(err, &request):
		return CodeAddress
	case errors.As(err, &refused):
		if refused.Code == api.CodeExhausted {
			return CodeNoSubnet
		}
		return CodeRefused
	}
	return types.ErrInternal
}
