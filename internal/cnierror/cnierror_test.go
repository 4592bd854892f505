package cnierror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/delegate"
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
		{printable, types.ErrInvalidNetNS, "ADD: as it is"},
		{types.NewError(types.ErrInvalidNetworkConfig, "network a\nb", ""), types.ErrInvalidNetworkConfig, "ADD: network a; b"},
		{fmt.Errorf("keep the lease: %w", &fs.PathError{Op: "write", Path: "/l", Err: syscall.ENOSPC}), types.ErrIOFailure, "/l: no space left on device: make room on that file system"},
		{fmt.Errorf("keep the lease: write /l: %w", syscall.EROFS), types.ErrIOFailure, "/l: read-only file system: make that file system writable"},
		{fmt.Errorf("set a to 1: %w: set it on the host: sysctl -w a=1", syscall.EROFS), types.ErrIOFailure, "sysctl -w a=1"},
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

// TestRun: what the library says gets the verb and what to do, and nothing else
// is changed.
func TestRun(t *testing.T) {
	for _, tt := range []struct {
		err  *types.Error
		want string
	}{
		{types.NewError(types.ErrInvalidEnvironmentVariables, "required env variables [CNI_NETNS] missing", ""), "ADD: required env variables [CNI_NETNS] missing: a container runtime"},
		{types.NewError(types.ErrDecodingFailure, "error unmarshall network config: unexpected end of JSON input", ""), "ADD: error unmarshall network config: unexpected end of JSON input: the standard input"},
		{types.NewError(types.ErrIncompatibleCNIVersion, "incompatible CNI versions", "config is 9"), "ADD: incompatible CNI versions"},
		{types.NewError(types.ErrDecodingFailure, "ADD: ours", ""), "ADD: ours"},
	} {
		got := Run("ADD", tt.err)
		if got.Code != tt.err.Code || got.Details != tt.err.Details || !strings.HasPrefix(got.Msg, tt.want) || strings.Contains(tt.want, "ours") && got.Msg != tt.want {
			t.Errorf("%+v became %+v", tt.err, got)
		}
	}
	if Run("ADD", nil) != nil {
		t.Error("no error became one")
	}
}

// TestRemedyForPermission: root has another trouble than who he is.
func TestRemedyForPermission(t *testing.T) {
	for _, err := range []error{syscall.EACCES, syscall.EPERM} {
		err := fmt.Errorf("open lock: %w", err)
		if got := remedy(err, 1000); got != ": run it as root, and not as user 1000" {
			t.Errorf("%v: a user is told %q", err, got)
		}
		if got := remedy(err, 0); got != "" {
			t.Errorf("%v: root is told %q", err, got)
		}
	}
}

// TestDetails: what another program said at length is not in the message.
func TestDetails(t *testing.T) {
	long := strings.Repeat("goroutine…\n", 1000)
	for details, want := range map[string]string{"": "", "a\nb": "a; b", long: "…"} {
		err := New(CodeIPAM, fmt.Errorf("run static: %w", &delegate.Failure{Reason: "exit status 2: panic", Details: details}))
		for _, err := range []error{Of("ADD", "dcos", err), Status("dcos", err, false)} {
			var got *types.Error
			if !errors.As(err, &got) || !strings.HasSuffix(got.Msg, ": overlay dcos: run static: exit status 2: panic") {
				t.Errorf("got %v", err)
			}
			if !strings.HasSuffix(got.Details, want) || strings.Contains(got.Details, "\n") || len(got.Details) > maxDetails+4 || !utf8.ValidString(got.Details) {
				t.Errorf("%.20q: the details are %d bytes, %.30q", details, len(got.Details), got.Details)
			}
		}
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
