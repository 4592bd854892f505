package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// fault is one thing that goes wrong for a while.
type fault struct {
	// at is when it begins, from the start of the torture.
	at, length time.Duration
	kind       faultKind
	// node is the one that it happens to; other is the second of a cut.
	node, other int
}

type faultKind string

const (
	killMember       faultKind = "kill -9 of the etcd member"
	pauseMember      faultKind = "pause of the etcd member"
	killCoordinator  faultKind = "kill -9 of the coordinator"
	pauseCoordinator faultKind = "pause of the coordinator"
	// isolate cuts a host off from all others and from the clients.
	isolate faultKind = "isolation of the host"
	// cut parts two hosts, while both reach the third and the clients.
	cut faultKind = "cut between the host and the next"
)

func (f fault) String() string {
	return fmt.Sprintf("%6.2f s, for %.2f s: %s, node %d", f.at.Seconds(), f.length.Seconds(), f.kind, f.node)
}

// lane is a sequence of faults, one after the other. Lanes run side by side,
// so that now and then the cluster loses more than it can bear.
type lane struct {
	kinds          []faultKind
	length, spread time.Duration
	gap            time.Duration
}

// schedule is what goes wrong within total: the same for the same seed.
func schedule(seed uint64, total time.Duration) []fault {
	rng := rand.New(rand.NewPCG(seed, 1))
	lanes := []lane{
		{[]faultKind{killMember, pauseMember, isolate, cut}, 200 * time.Millisecond, 2200 * time.Millisecond, 700 * time.Millisecond},
		{[]faultKind{killCoordinator, pauseCoordinator}, 100 * time.Millisecond, 2500 * time.Millisecond, 700 * time.Millisecond},
		{[]faultKind{killMember, pauseMember, pauseCoordinator}, 200 * time.Millisecond, 1500 * time.Millisecond, 6 * time.Second},
	}
	var out []fault
	for _, l := range lanes {
		at := time.Duration(rng.Int64N(int64(l.gap)))
		for at < total {
			f := fault{
				at:     at,
				length: l.length + time.Duration(rng.Int64N(int64(l.spread))),
				kind:   l.kinds[rng.IntN(len(l.kinds))],
				node:   rng.IntN(nodes),
			}
			f.other = (f.node + 1) % nodes
			out = append(out, f)
			at += f.length + time.Duration(rng.Int64N(int64(l.gap)))
		}
	}
	slices.SortStableFunc(out, func(a, b fault) int { return int(a.at - b.at) })
	return out
}

// inflict does all of faults at their time. When ctx ends, what is wrong is
// mended and nothing more goes wrong.
func (c *cluster) inflict(ctx context.Context, faults []fault) error {
	var group errgroup.Group
	begin := time.Now()
	for _, f := range faults {
		pass(ctx, f.at-time.Since(begin))
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := c.do(ctx, f); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (c *cluster) do(ctx context.Context, f fault) error {
	switch f.kind {
	case killMember:
		return c.members[f.node].kill(ctx, f.length)
	case pauseMember:
		return c.members[f.node].pause(ctx, f.length)
	case killCoordinator:
		return c.coordinators[f.node].kill(ctx, f.length)
	case pauseCoordinator:
		return c.coordinators[f.node].pause(ctx, f.length)
	case isolate:
		if err := c.hosts[f.node].Isolate(); err != nil {
			return err
		}
		pass(ctx, f.length)
		return c.hosts[f.node].Plug()
	case cut:
		if err := c.part(context.WithoutCancel(ctx), f, "-I"); err != nil {
			return err
		}
		pass(ctx, f.length)
		return c.part(context.WithoutCancel(ctx), f, "-D")
	}
	return errors.New("there is no such fault")
}

// part adds (-I) or removes (-D) the rules of a cut.
func (c *cluster) part(ctx context.Context, f fault, verb string) error {
	one, other := c.hosts[f.node], c.hosts[f.other]
	_, err := one.Run(ctx, "iptables", "-w", verb, "INPUT", "-s", other.Addr.String(), "-j", "DROP")
	_, err2 := other.Run(ctx, "iptables", "-w", verb, "INPUT", "-s", one.Addr.String(), "-j", "DROP")
	return errors.Join(err, err2)
}

func TestScheduleReplays(t *testing.T) {
	one, again, other := schedule(7, time.Minute), schedule(7, time.Minute), schedule(8, time.Minute)
	if !slices.Equal(one, again) || slices.Equal(one, other) {
		t.Error("a schedule must follow from its seed")
	}
	seen := map[faultKind]bool{}
	for _, f := range one {
		seen[f.kind] = true
	}
	if len(seen) != 6 {
		t.Errorf("a minute has the faults %v only", seen)
	}
}
