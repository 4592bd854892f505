package torture

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// readers is the number of those that follow the stream under torture.
const readers = 4

// TestTorture: whatever is killed, paused and cut off, nothing is ever leased
// twice, and what was acknowledged holds.
func TestTorture(t *testing.T) {
	seed := cmp.Or(chosen.seed, uint64(time.Now().UnixNano()))
	faults := schedule(seed, chosen.duration)
	t.Logf("%d faults within %s; to replay them: -torture.seed=%d -torture.duration=%s", len(faults), chosen.duration, seed, chosen.duration)
	c := newCluster(t)
	rec := &recorder{}
	streams := c.suffer(t, faults, seed, rec)
	if t.Failed() {
		for _, f := range faults {
			t.Log(f)
		}
		return
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i, r := range streams {
		err := lab.Until(ctx, fmt.Sprintf("reader %d to know what there is", i), func(ctx context.Context) error {
			if err := r.catchUp(ctx, c.hosts[i%nodes].CoordinatorURL()); err != nil {
				return err
			}
			return r.agrees(ctx, c)
		})
		if err != nil {
			t.Error(err)
		}
		for _, p := range r.problems[:min(20, len(r.problems))] {
			t.Error(p)
		}
		t.Logf("reader %d: %v", i, r.counts)
	}

	client, err := c.etcd()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	history, err := readHistory(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	a := audit(history, rec.ops)
	t.Logf("%d changes in etcd's history, %d leases ended", len(history), total(a.removals))
	for _, p := range a.problems[:min(20, len(a.problems))] {
		t.Error(p)
	}
	if agents, _ := streams[0].state(); same(agents, values(a.agents)) != nil {
		t.Errorf("etcd's history ends otherwise than the streams: %v", same(agents, values(a.agents)))
	}

	ops := append(rec.ops, reads(a)...)
	summarize(t, ops)
	began := time.Now()
	for name, bad := range map[string]map[string]string{
		"lease": judge(leaseModel(), leaseHistories(ops)),
		"owner": judge(ownerModel(), ownerHistories(ops)),
	} {
		for which, what := range bad {
			t.Errorf("the history of the %s of %s %s", name, which, what)
		}
	}
	t.Logf("the histories of %d agents were judged in %s", agents, time.Since(began).Round(time.Millisecond))
}

// suffer lets all clients and readers work while faults happen, and returns
// when everything is mended and ready again.
func (c *cluster) suffer(t *testing.T, faults []fault, seed uint64, rec *recorder) []*reader {
	ctx, cancel := context.WithTimeout(t.Context(), chosen.duration)
	defer cancel()
	var wg sync.WaitGroup
	for n := range agents {
		wg.Go(func() { newClient(c, n, seed).run(ctx, rec) })
	}
	var streams []*reader
	for i := range readers {
		r := newReader(c.clients)
		streams = append(streams, r)
		wg.Go(func() { r.wander(ctx, c, rand.New(rand.NewPCG(seed, uint64(1000+i)))) })
	}
	if err := c.inflict(ctx, faults); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := c.ready(t.Context()); err != nil {
		t.Error(err)
	}
	return streams
}

// reads are what etcd holds of each agent when all is over.
func reads(a *auditor) []op {
	var out []op
	now := time.Now()
	for n := range agents {
		o := op{kind: opRead, agent: n, outcome: done, call: now, ret: now}
		if at, ok := a.ids[idOf(n)]; ok {
			o.ip, o.record = at, a.agents[at]
		}
		out = append(out, o)
	}
	return out
}

// fewest is how often each kind of request must have succeeded.
const fewest = 10

// summarize shows what the clients did, and fails if they did next to nothing.
func summarize(t *testing.T, ops []op) {
	t.Helper()
	counts := map[string]int{}
	for _, o := range ops {
		counts[fmt.Sprintf("%s %s %s", o.kind, o.outcome, o.code)]++
		if o.code == api.CodeInternal {
			t.Errorf("an answer that no caller should get: %s", o)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%6d %s", counts[what], what)
	}
	for _, kind := range []opKind{opClaim, opRelease, opDelete, opStatus} {
		if n := counts[string(kind)+" done "]; n < fewest {
			t.Errorf("only %d times was a %s done: this shows nothing", n, kind)
		}
	}
}

func total(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func values(m map[netip.Addr]*lease.Agent) map[netip.Addr]lease.Agent {
	out := map[netip.Addr]lease.Agent{}
	for k, v := range m {
		out[k] = *v
	}
	return out
}
