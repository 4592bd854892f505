package ping

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// path is a way on which packets up to mtu get through; every nth is lost.
type path struct {
	mtu, nth int
	local    int // MTU of this host's device
	sent     int
	sizes    []int
}

func (p *path) ask(_ context.Context, _ netip.Addr, size int, _ time.Duration) (time.Duration, error) {
	p.sent++
	p.sizes = append(p.sizes, size)
	switch {
	case size > p.local:
		return 0, unix.EMSGSIZE
	case size > p.mtu, p.nth > 0 && p.sent%p.nth == 0:
		return 0, errSilent
	}
	return time.Duration(p.sent) * time.Millisecond, nil
}

func TestAsk(t *testing.T) {
	o := Options{Size: 1450, Count: 3, Timeout: time.Second}
	for _, tt := range []struct {
		name    string
		path    path
		want    Result
		problem string
	}{
		{"well", path{mtu: 1450, local: 1450}, Result{Sent: 3, Received: 3, RTT: time.Millisecond, MTU: 1450}, ""},
		{"nobody there", path{mtu: 0, local: 1450}, Result{Sent: 3}, "no answer: nothing came back in time"},
		{"smaller on the way", path{mtu: 1402, local: 1450}, Result{Sent: 3, Received: 3, RTT: time.Millisecond, MTU: 1402},
			"packets of 1402 bytes get through, larger ones up to 1450 do not"},
		{"smaller here", path{mtu: 9000, local: 1449}, Result{Sent: 3, Received: 3, RTT: time.Millisecond, MTU: 1449},
			"packets of 1449 bytes get through, larger ones up to 1450 do not"},
		{"nothing but small ones", path{mtu: smallSize, local: 1450}, Result{Sent: 3, Received: 3, RTT: time.Millisecond, MTU: smallSize},
			"packets of 84 bytes get through, larger ones up to 1450 do not"},
		{"one lost", path{mtu: 1450, local: 1450, nth: 2}, Result{Sent: 3, Received: 2, RTT: time.Millisecond, MTU: 1450}, "1 of 3 packets were lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(t.Context(), &tt.path, Target{}, o)
			tt.want.Problem = tt.problem
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if got.OK() != (tt.problem == "") {
				t.Errorf("OK is %v", got.OK())
			}
		})
	}
	p := path{mtu: 1450, local: 1450}
	if got := ask(t.Context(), &p, Target{}, Options{Count: 1}); !got.OK() || got.MTU != smallSize || len(p.sizes) != 1 {
		t.Errorf("with small packets only: %+v, sizes %v", got, p.sizes)
	}
}

// TestLoopback asks this host itself, in a namespace of its own, by both
// families.
func TestLoopback(t *testing.T) {
	netnstest.Enter(t)
	targets := []Target{
		{VTEP: netip.MustParseAddr("127.0.0.1")}, {VTEP: netip.MustParseAddr("::1")}, {VTEP: netip.MustParseAddr("127.0.0.7")},
		{VTEP: netip.MustParseAddr("192.0.2.1")},
	}
	told := 0
	results, err := Run(t.Context(), targets, Options{Size: 1400, Count: 2, Timeout: 5 * time.Second, Parallel: 2}, func(Result) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results[:3] {
		if !r.OK() || r.Received != 2 || r.MTU != 1400 || r.VTEP != targets[i].VTEP {
			t.Errorf("%+v", r)
		}
	}
	if r := results[3]; r.OK() || !strings.Contains(r.Problem, "unreachable") {
		t.Errorf("without a route: %+v", r)
	}
	if told != len(targets) {
		t.Errorf("told of %d", told)
	}
}

func TestCancelled(t *testing.T) {
	netnstest.Enter(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	results, err := Run(ctx, []Target{{VTEP: netip.MustParseAddr("127.0.0.1")}}, Options{Count: 1, Timeout: time.Hour}, func(Result) {})
	// The answer may come first.
	if err != nil || !results[0].OK() && !strings.Contains(results[0].Problem, "enough") {
		t.Errorf("%+v, %v", results, err)
	}
}
