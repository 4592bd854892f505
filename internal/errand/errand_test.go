package errand

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

// TestMain lets the test's own program be the one that does errands.
func TestMain(m *testing.M) {
	if os.Getenv("ERRAND_PROGRAM") == "" {
		os.Exit(m.Run())
	}
	if err := Serve(context.Background(), os.Stdin, os.Stdout, open); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// open plays a coordinator, whose mood is the name of the overlay.
func open(o Options) (Do, error) {
	if len(o.Masters) == 0 {
		return nil, errors.New("whom shall it ask?")
	}
	return func(ctx context.Context, r Request) (any, error) {
		switch r.Overlay {
		case "refused":
			return nil, &api.Error{Code: api.CodeExhausted, Status: 409, Message: "nothing left"}
		case "unreachable":
			return nil, fmt.Errorf("%w (%s: refused)", api.ErrUnreachable, o.Masters[0])
		case "late":
			<-ctx.Done()
			return nil, fmt.Errorf("read the answer: %w", ctx.Err())
		case "other":
			return nil, errors.New("it is odd")
		case "dead":
			os.Exit(3)
		case "deaf":
			select {}
		}
		switch r.Call {
		case CallClaim:
			var req api.ClaimRequest
			err := json.Unmarshal(r.Body, &req)
			return api.ClaimResponse{Revision: int64(len(req.Overlays)), Deleting: []string{r.IP.String(), o.LocalIP.String()}}, err
		case CallClaimAddress, CallReleaseAddress:
			var req api.AddressRequest
			err := json.Unmarshal(r.Body, &req)
			if said := fmt.Sprintf("%s %s %s %s %s", r.IP, r.Overlay, r.Address, req.Container, req.Interface); err == nil && said != "10.0.0.2 o 9.0.0.1 c eth0" {
				err = errors.New(said)
			}
			if r.Call == CallReleaseAddress {
				return nil, err
			}
			return api.ClaimResponse{Revision: 9}, err
		case CallReport:
			var req api.StatusRequest
			if err := json.Unmarshal(r.Body, &req); err != nil || len(req.Overlays) != 1 {
				return nil, fmt.Errorf("it reports %s", r.Body)
			}
			return nil, nil
		case CallAgents:
			return api.AgentsResponse{Revision: 7}, nil
		}
		return api.Overlay{Overlay: network.Overlay{Name: r.Overlay}}, nil
	}, nil
}

func program(t *testing.T) string {
	t.Helper()
	t.Setenv("ERRAND_PROGRAM", "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func client(t *testing.T) *Client {
	t.Helper()
	c, err := Open(program(t), Options{Masters: []string{"http://a"}, LocalIP: netip.MustParseAddr("10.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCalls(t *testing.T) {
	c, ctx := client(t), t.Context()
	ip := netip.MustParseAddr("10.0.0.2")
	claim, err := c.Claim(ctx, ip, api.ClaimRequest{Overlays: []string{"a", "b"}})
	if err != nil || claim.Revision != 2 || strings.Join(claim.Deleting, " ") != "10.0.0.2 10.0.0.1" {
		t.Errorf("the claim is answered with %+v, %v", claim, err)
	}
	if err := c.Report(ctx, ip, api.StatusRequest{Overlays: []api.OverlayStatus{{Name: "a"}}}); err != nil {
		t.Errorf("report: %v", err)
	}
	addr := netip.MustParseAddr("9.0.0.1")
	if claim, err := c.ClaimAddress(ctx, ip, "o", addr, api.AddressRequest{Container: "c", Interface: "eth0"}); err != nil || claim.Revision != 9 {
		t.Errorf("claim of an address: %+v, %v", claim, err)
	}
	if err := c.ReleaseAddress(ctx, ip, "o", addr, "c", "eth0"); err != nil {
		t.Errorf("release of an address: %v", err)
	}
	if all, err := c.Agents(ctx); err != nil || all.Revision != 7 {
		t.Errorf("the agents are %+v, %v", all, err)
	}
	if o, err := c.Overlay(ctx, "dcos"); err != nil || o.Name != "dcos" {
		t.Errorf("the overlay is %+v, %v", o, err)
	}
	if o, err := c.OverlayStatus(ctx, "dcos"); err != nil || o.Name != "dcos" {
		t.Errorf("the overlay's status is %+v, %v", o, err)
	}
}

// TestErrors: an error of the program is what it would have been without it,
// and ends no further calls.
func TestErrors(t *testing.T) {
	c := client(t)
	ask := func(mood string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := c.Overlay(ctx, mood)
		return err
	}
	var refused *api.Error
	if err := ask("refused"); !errors.As(err, &refused) || *refused != (api.Error{Code: api.CodeExhausted, Status: 409, Message: "nothing left"}) {
		t.Errorf("a refusal is %#v", err)
	}
	if err := ask("unreachable"); !errors.Is(err, api.ErrUnreachable) || err.Error() != "no coordinator answered (http://a: refused)" {
		t.Errorf("unreachable is %v", err)
	}
	if err := ask("late"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, api.ErrUnreachable) {
		t.Errorf("late is %v", err)
	}
	if err := ask("other"); err == nil || err.Error() != "it is odd" {
		t.Errorf("other is %v", err)
	}
	if err := ask("dcos"); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestProgramFails: a program that dies, hangs or can't begin makes errors, and
// no call waits for ever.
func TestProgramFails(t *testing.T) {
	for _, mood := range []string{"dead", "deaf"} {
		c := client(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		for _, name := range []string{mood, "dcos"} {
			if _, err := c.Overlay(ctx, name); !errors.Is(err, api.ErrUnreachable) {
				t.Errorf("%s, asked for %s: %v", mood, name, err)
			}
		}
	}
	c, err := Open(program(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if _, err := c.Overlay(t.Context(), "dcos"); err == nil || err.Error() != "whom shall it ask?" {
			t.Errorf("without coordinators: %v", err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without program: %v", err)
	}
}

// TestEndsWithItsInput: who started it may be killed while a call is under way.
func TestEndsWithItsInput(t *testing.T) {
	in, w := io.Pipe()
	done := make(chan error)
	began := make(chan bool)
	go func() {
		done <- Serve(t.Context(), in, io.Discard, func(Options) (Do, error) {
			return func(ctx context.Context, _ Request) (any, error) {
				close(began)
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}, nil
		})
	}()
	if _, err := io.WriteString(w, `{} {"call":"agents","timeout_ms":3600000}`); err != nil {
		t.Fatal(err)
	}
	<-began
	w.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	var out bytes.Buffer
	if err := Serve(t.Context(), strings.NewReader("{"), &out, open); err == nil || out.Len() > 0 {
		t.Errorf("half an input is answered with %q, %v", out.String(), err)
	}
}

func TestFind(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Find("")
	self, _ := os.Executable()
	if err == nil || !strings.Contains(err.Error(), Program+", ") || !strings.Contains(err.Error(), filepath.Dir(self)) {
		t.Errorf("where it is missing, the error is %v", err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, Program)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if at, err := Find(dir); err == nil {
		t.Errorf("a file that is no program is found at %s", at)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if at, err := Find(t.TempDir() + ":" + dir); err != nil || at != path {
		t.Errorf("in CNI_PATH it is %q, %v", at, err)
	}
	t.Setenv("PATH", dir)
	if at, err := Find(""); err != nil || at != path {
		t.Errorf("in PATH it is %q, %v", at, err)
	}
}
