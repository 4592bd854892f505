package torture

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/api"
)

const (
	// outage is how long a member is away: long enough that every claim that
	// an agent may wait for has been answered or given up.
	outage = 8 * time.Second
	// claimants is the number of agents that claim all the time.
	claimants = 6
	// claimPatience is how long an agent waits for one coordinator's answer.
	claimPatience = 5 * time.Second
)

// TestOutage shows for how long an agent waits for a claim while one member of
// etcd is away, and fails if one waits for as long as that takes.
func TestOutage(t *testing.T) {
	c := newCluster(t)
	for _, kind := range []faultKind{killMember, pauseMember, isolate} {
		for _, leader := range []bool{false, true} {
			role := map[bool]string{true: "leader", false: "follower"}[leader]
			t.Run(strings.ReplaceAll(fmt.Sprint(kind, ", ", role), " ", "_"), func(t *testing.T) {
				if err := errors.Join(c.ready(t.Context()), c.flowing(t.Context())); err != nil {
					t.Fatal(err)
				}
				node, err := c.member(t.Context(), leader)
				if err != nil {
					t.Fatal(err)
				}
				longest, served := c.outage(t, fault{length: outage, kind: kind, node: node})
				t.Logf("%s of a %s: the longest wait for a claim is %.2f s, of %d that were served", kind, role, longest.Seconds(), served)
				if longest >= outage {
					t.Errorf("an agent waited for the end of the outage")
				}
			})
		}
	}
}

// flowing waits until the connections between the hosts have got over the last
// fault. TCP sends again what was lost after twice as long at each try, so it may
// take as long as a host was cut off until a member hears another one again. If
// a third member is lost meanwhile, etcd has no leader for so long.
func (c *cluster) flowing(ctx context.Context) error {
	for _, h := range c.hosts {
		err := lab.Until(ctx, "the connections of host "+h.Name+" to flow again", func(ctx context.Context) error {
			text, err := h.Run(ctx, "ss", "--no-header", "--oneline", "--tcp", "--numeric", "--info", "state", "established")
			if err != nil {
				return err
			}
			for line := range strings.Lines(text) {
				if strings.Contains(line, " backoff:") {
					return fmt.Errorf("one waits to send again: %s", strings.Join(strings.Fields(line), " "))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// member finds the node that has etcd's leader, or another one, when no member is
// behind: one that is elects nobody before it has caught up.
func (c *cluster) member(ctx context.Context, leader bool) (node int, err error) {
	client, err := c.etcd()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	err = lab.Until(ctx, "etcd's members to agree on a leader", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		var all []*clientv3.StatusResponse
		for _, h := range c.hosts {
			s, err := client.Status(ctx, clientURL(h))
			if err != nil {
				return err
			}
			all = append(all, s)
		}
		for i, s := range all {
			if s.Leader != all[0].Leader || s.Leader == 0 {
				return errors.New("they do not agree")
			}
			if s.RaftAppliedIndex != all[0].RaftAppliedIndex {
				return errors.New("one is behind")
			}
			if (s.Header.MemberId == s.Leader) == leader {
				node = i
			}
		}
		return nil
	})
	return node, err
}

// outage lets agents claim while f happens. longest is how long one of them
// waited for a claim, whomever it asked; served counts the claims.
func (c *cluster) outage(t *testing.T, f fault) (longest time.Duration, served int) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n := range claimants {
		wg.Go(func() {
			ip := agentIPs(n)[0]
			h := httpFrom(c, ip)
			defer h.CloseIdleConnections()
			at := n
			for ctx.Err() == nil {
				began := time.Now()
				at = c.insist(ctx, h, at, f, http.MethodPut, ip, api.ClaimRequest{ID: idOf(n), Overlays: []string{"red"}})
				if ctx.Err() == nil {
					mu.Lock()
					longest, served = max(longest, time.Since(began)), served+1
					mu.Unlock()
				}
				// So that the next claim is a write, too.
				at = c.insist(ctx, h, at, f, http.MethodDelete, ip, nil)
			}
		})
	}
	err := c.do(ctx, f)
	if err == nil {
		err = c.ready(ctx)
	}
	cancel()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return longest, served
}

// insist asks one coordinator after the other, beginning with at, as agents do,
// until one does it, which is the result, or ctx ends. One on a host that f cuts
// off is left out: how soon that is noticed is not etcd's matter.
func (c *cluster) insist(ctx context.Context, h *http.Client, at int, f fault, method string, ip netip.Addr, in any) int {
	for ; ctx.Err() == nil; at++ {
		if f.kind == isolate && at%nodes == f.node {
			continue
		}
		target := c.hosts[at%nodes].CoordinatorURL() + strings.Replace(api.PathLease, "{ip}", ip.String(), 1)
		if result, _ := send(h, claimPatience, method, target, in, nil); result == done {
			break
		}
		pass(ctx, 20*time.Millisecond)
	}
	return at % nodes
}
