package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// TestThousandPeers has one companion learn of a thousand agents at once, and
// of half of them going.
func TestThousandPeers(t *testing.T) {
	t.Parallel()
	const n = 1000
	s := newScene(t)
	ctx := t.Context()
	// The agents are addresses of the coordinator's host, which may speak for
	// them.
	var ips []string
	var batch strings.Builder
	for i := range n {
		ip := fmt.Sprintf("172.20.%d.%d", i/250, i%250+1)
		ips = append(ips, ip)
		fmt.Fprintf(&batch, "addr add %s/32 dev lo\n", ip)
	}
	must[string](t)(s.Master.RunInput(ctx, []byte(batch.String()), "ip", "-batch", "-"))
	began := time.Now()
	claimAll(t, s, ips)
	t.Logf("%d claims after %s", n, time.Since(began).Round(time.Millisecond))

	began = time.Now()
	check(t, s.StartCompanion(ctx, s.A))
	awaitPeers(t, s)
	t.Logf("the kernel of host a knows them all %s after its companion's start", time.Since(began).Round(time.Millisecond))

	body := must[[]byte](t)(json.Marshal(map[string]any{"agents": ips[:n/2]}))
	began = time.Now()
	code, answer, err := s.Master.HTTP(ctx, http.MethodPost, s.Master.CoordinatorURL()+"/overlay-master/agents/delete", body)
	if err != nil || code != http.StatusOK {
		t.Fatalf("delete answers %d %.200s, %v", code, answer, err)
	}
	awaitPeers(t, s)
	t.Logf("and has forgotten half of them %s after the call to delete them", time.Since(began).Round(time.Millisecond))
}

// claimAll claims everything for agents that are addresses of the
// coordinator's host.
func claimAll(t *testing.T, s *scene.Scene, ips []string) {
	t.Helper()
	var wg sync.WaitGroup
	work := make(chan string)
	for range 8 {
		wg.Go(func() {
			for ip := range work {
				body := fmt.Appendf(nil, `{"id": "id-%s", "all_overlays": true}`, ip)
				code, answer, err := s.Master.HTTP(t.Context(), http.MethodPut, "http://127.0.0.1:64001/v1/agents/"+ip+"/lease", body)
				if err != nil || code != http.StatusOK {
					t.Errorf("claim for %s: %d %s, %v", ip, code, answer, err)
				}
			}
		})
	}
	for _, ip := range ips {
		work <- ip
	}
	close(work)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// awaitPeers waits until the kernel of host a holds exactly what the state
// asks for, entry by entry.
func awaitPeers(t *testing.T, s *scene.Scene) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, "all peers in the kernel", func(ctx context.Context) error {
		state, err := s.State(ctx)
		if err != nil {
			return err
		}
		have, err := peersOf(ctx, s.A)
		if err != nil {
			return err
		}
		return difference(expected(state, s), have)
	}))
}

// expected are the entries that the state asks for on host a, as words.
func expected(state masterstate.State, s *scene.Scene) (out []string) {
	for _, a := range state.Agents {
		if a.IP == s.A.Addr {
			continue
		}
		v := a.Overlays[0].Backend.VXLAN
		out = append(out, fmt.Sprintf("neigh %s %s", v.VTEPIP.Addr(), v.VTEPMAC), fmt.Sprintf("neigh %s %s", v.VTEPIP6.Addr(), v.VTEPMAC),
			fmt.Sprintf("fdb %s %s", v.VTEPMAC, a.IP))
		for _, o := range a.Overlays {
			if o.Subnet.IsValid() {
				out = append(out, fmt.Sprintf("route %s %s", o.Subnet, v.VTEPIP.Addr()))
			}
			if o.Subnet6.IsValid() {
				out = append(out, fmt.Sprintf("route %s %s", o.Subnet6, v.VTEPIP6.Addr()))
			}
		}
	}
	slices.Sort(out)
	return out
}

// peersOf are the entries on a host's VTEP, as iproute2 tells them, in the same
// words.
func peersOf(ctx context.Context, h *lab.Host) (out []string, err error) {
	for _, command := range []string{
		"ip -o route show proto 44 dev vtep1024", "ip -6 -o route show proto 44 dev vtep1024",
		"ip -o neigh show dev vtep1024 nud permanent", "bridge fdb show dev vtep1024",
	} {
		text, err := h.Run(ctx, strings.Fields(command)...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			switch {
			case strings.Contains(command, "route"):
				out = append(out, fmt.Sprintf("route %s %s", f[0], f[2]))
			case strings.Contains(command, "neigh"):
				out = append(out, fmt.Sprintf("neigh %s %s", f[0], f[2]))
			default:
				out = append(out, fmt.Sprintf("fdb %s %s", f[0], f[2]))
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// difference says what is missing and what is too much.
func difference(want, have []string) error {
	if slices.Equal(want, have) {
		return nil
	}
	var errs []error
	for _, w := range want {
		if _, ok := slices.BinarySearch(have, w); !ok {
			errs = append(errs, errors.New("missing: "+w))
		}
	}
	for _, h := range have {
		if _, ok := slices.BinarySearch(want, h); !ok {
			errs = append(errs, errors.New("too much: "+h))
		}
	}
	return fmt.Errorf("%d entries instead of %d: %w", len(have), len(want), errors.Join(errs[:min(len(errs), 5)]...))
}
