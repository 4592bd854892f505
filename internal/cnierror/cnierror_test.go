package cnierror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/portmap"
)

func TestOf(t *testing.T) {
	printable := types.NewError(types.ErrInvalidNetNS, "as it is", "more\nof it")
	for _, tt := range []struct {
		err  error
		code uint
		msg  string
	}{
		{errors.New("a\nb"), types.ErrInternal, "ADD: overlay dcos: a; b"},
		{fmt.Errorf("claim: %w", api.ErrUnreachable), types.ErrTryAgainLater, ""},
		{fmt.Errorf("claim: %w", context.DeadlineExceeded), types.ErrTryAgainLater, ""},
		{&ipam.ExhaustedError{Overlay: "dcos"}, CodeNoAddress, ""},
		{&ipam.DuplicateError{Overlay: "dcos"}, CodeDuplicate, ""},
		{&ipam.RequestError{Overlay: "dcos"}, CodeAddress, ""},
		{fmt.Errorf("map: %w", &portmap.NotFoundError{CNIPath: "/opt/cni/bin"}), CodePortMapping, "/opt/cni/bin"},
		{fmt.Errorf("claim: %w", &api.Error{Code: api.CodeExhausted}), CodeNoSubnet, ""},
		{fmt.Errorf("claim: %w", &api.Error{Code: api.CodeDisabled}), CodeRefused, ""},
		{New(CodeChanged, errors.New("gone")), CodeChanged, "ADD: overlay dcos: gone"},
		{New(CodeIPAM, fmt.Errorf("run static: %w", printable)), CodeIPAM, "run static: as it is"},
		{printable, types.ErrInvalidNetNS, "as it is"},
		{types.NewError(types.ErrInvalidNetworkConfig, "network a\nb", ""), types.ErrInvalidNetworkConfig, "network a; b"},
		{fmt.Errorf("keep the lease: %w", &fs.PathError{Op: "write", Path: "/l", Err: syscall.ENOSPC}), types.ErrIOFailure, "/l: no space left on device: make room on that file system"},
		// What undoing it said is not lost for the code's sake.
		{errors.Join(printable, errors.New("and not undone")), types.ErrInvalidNetNS, "and not undone"},
	} {
		var got *types.Error
		if err := Of("ADD", "dcos", tt.err); !errors.As(err, &got) {
			t.Fatalf("%v has no code", err)
		}
		if got.Code != tt.code || !strings.Contains(got.Msg, tt.msg) || strings.Contains(got.Msg, "\n") || strings.Count(got.Msg, "overlay dcos") > 1 {
			t.Errorf("%v: got %d %q, want %d and %q in it", tt.err, got.Code, got.Msg, tt.code, tt.msg)
		}
	}
	if Of("ADD", "dcos", nil) != nil || Status("dcos", nil, true) != nil {
		t.Error("no error became one")
	}
}

func TestStatus(t *testing.T) {
	for limited, want := range map[bool]uint{false: types.ErrPluginNotAvailable, true: types.ErrLimitedConnectivity} {
		var got *types.Error
		if err := Status("dcos", errors.New("no\nlease"), limited); !errors.As(err, &got) || got.Code != want || got.Msg != "STATUS: overlay dcos: no; lease" {
			t.Errorf("limited %v: %v", limited, err)
		}
	}
}
