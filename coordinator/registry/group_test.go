package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

const wide = `{"vtep_subnet": "44.128.0.0/16", "vtep_mac_oui": "70:B3:D5:00:00:00",
	"overlays": [{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 24}]}`

// gate is an etcd whose transactions wait while it is shut, and are counted.
type gate struct {
	clientv3.KV
	mu    sync.Mutex
	tried atomic.Int64
}

func (g *gate) Txn(ctx context.Context) clientv3.Txn { return gatedTxn{g.KV.Txn(ctx), g} }

type gatedTxn struct {
	clientv3.Txn
	gate *gate
}

func (t gatedTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { return gatedTxn{t.Txn.If(cs...), t.gate} }
func (t gatedTxn) Then(ops ...clientv3.Op) clientv3.Txn { return gatedTxn{t.Txn.Then(ops...), t.gate} }
func (t gatedTxn) Else(ops ...clientv3.Op) clientv3.Txn { return gatedTxn{t.Txn.Else(ops...), t.gate} }

func (t gatedTxn) Commit() (*clientv3.TxnResponse, error) {
	t.gate.tried.Add(1)
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	return t.Txn.Commit()
}

// gated runs another registry on w's etcd, behind a gate.
func (w *world) gated(opts registry.Options) (*registry.Registry, *gate) {
	w.t.Helper()
	g := &gate{KV: w.store.Client.KV}
	client := clientv3.NewCtxClient(w.t.Context())
	client.KV, client.Lease, client.Watcher = g, w.store.Client.Lease, w.store.Client.Watcher
	opts.Now, opts.Quarantine = w.clock.Now, quarantine
	r, stop := start(w.t, &etcd.Store{Client: client}, opts)
	w.t.Cleanup(stop)
	w.ready(r)
	r.Wait(time.Hour)
	return r, g
}

// answer is what a claim came to.
type answer struct {
	resp api.ClaimResponse
	err  error
}

// crowd shuts the gate and has agents from first on claim, n in all: the first
// by itself, the others while its transaction is under way.
func (w *world) crowd(r *registry.Registry, g *gate, first, n int) (open func() []answer) {
	w.t.Helper()
	g.mu.Lock()
	answers := make([]answer, n)
	before := g.tried.Load()
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			answers[i].resp, answers[i].err = r.Claim(w.t.Context(), ip(first+i), api.ClaimRequest{ID: fmt.Sprint("id-", first+i), Overlays: []string{"dcos"}})
		})
		if i == 0 {
			w.until("the first transaction is under way", func() bool { return g.tried.Load() == before+1 })
		}
	}
	if n <= 32 {
		// More of them would be a second group already.
		w.until("all others wait", func() bool { return r.Waiting() == n-1 })
	}
	return func() []answer {
		g.mu.Unlock()
		wg.Wait()
		return answers
	}
}

// TestGroup: calls that come while a transaction is under way go together in
// the next one.
func TestGroup(t *testing.T) {
	w := newWorld(t, wide, registry.Options{})
	r, g := w.gated(registry.Options{MaxTxnOps: 1024})
	answers := w.crowd(r, g, 0, 12)()
	check(t, "transactions", g.tried.Load(), int64(2))
	for i, a := range answers {
		if a.err != nil {
			t.Fatal(a.err)
		}
		if i > 1 && a.resp.Revision != answers[1].resp.Revision {
			t.Errorf("agent %d was leased at %d, another at %d", i, a.resp.Revision, answers[1].resp.Revision)
		}
	}
	check(t, "agents", len(registrytest.Whole(t, w.store.Client)), 12)
	// With nobody else, a call is a transaction of its own, at once.
	if _, err := r.Claim(t.Context(), ip(99), api.ClaimRequest{ID: "z"}); err != nil {
		t.Fatal(err)
	}
	check(t, "transactions", g.tried.Load(), int64(3))
}

// TestGroupIsBounded: what an etcd takes at once is cut into several groups,
// and where the bound is not known to be less, each goes by itself.
func TestGroupIsBounded(t *testing.T) {
	for name, most := range map[string]int{"one by one": 1, "some": 64, "more than etcd takes": 100_000} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, wide, registry.Options{})
			r, g := w.gated(registry.Options{MaxTxnOps: most})
			for _, a := range w.crowd(r, g, 0, 300)() {
				if a.err != nil {
					t.Fatal(a.err)
				}
			}
			check(t, "agents", len(registrytest.Whole(t, w.store.Client)), 300)
		})
	}
}

// TestGroupLosesRace: another coordinator is first with what a group wants.
func TestGroupLosesRace(t *testing.T) {
	w := newWorld(t, wide, registry.Options{})
	r, g := w.gated(registry.Options{MaxTxnOps: 1024})
	open := w.crowd(r, g, 0, 12)
	for i := range 20 {
		w.claim(100+i, fmt.Sprint("first-", i), "dcos")
	}
	for _, a := range open() {
		if a.err != nil {
			t.Error(a.err)
		}
	}
	check(t, "agents", len(registrytest.Whole(t, w.store.Client)), 32)
	if r.Counts().Conflicts == 0 {
		t.Error("no race was lost: this test shows nothing")
	}
}

// TestGroupKeepsDeadlines: whoever does not wait any longer is told so in time,
// and takes nothing from the others.
func TestGroupKeepsDeadlines(t *testing.T) {
	w := newWorld(t, wide, registry.Options{})
	r, g := w.gated(registry.Options{MaxTxnOps: 1024})
	open := w.crowd(r, g, 0, 6)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := r.Claim(ctx, ip(50), api.ClaimRequest{ID: "hasty", Overlays: []string{"dcos"}})
	if !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the hasty one was told: %v", err)
	}
	for _, a := range open() {
		if a.err != nil {
			t.Error(a.err)
		}
	}
	check(t, "agents: the hasty one had left before anything was done", len(registrytest.Whole(t, w.store.Client)), 6)
}

// TestGroupOfOneAgent: claims for one agent at once, which can't go together,
// have one answer.
func TestGroupOfOneAgent(t *testing.T) {
	w := newWorld(t, wide, registry.Options{})
	r, _ := w.gated(registry.Options{MaxTxnOps: 1024})
	var wg sync.WaitGroup
	answers := make([]answer, 40)
	for i := range answers {
		wg.Go(func() {
			answers[i].resp, answers[i].err = r.Claim(t.Context(), ip(1), api.ClaimRequest{ID: "a", Overlays: []string{"dcos"}})
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a.err != nil {
			t.Fatal(a.err)
		}
		// Which of two groups is first is etcd's to say.
		check(t, "agent", brief(a.resp.Agent), brief(answers[0].resp.Agent))
	}
	check(t, "agents", len(registrytest.Whole(t, w.store.Client)), 1)
}

// TestGroupWalk has three coordinators, which take differently many operations
// at once, claim, move and release at random on one etcd. At the revision of
// each answer the record must be as the answer says, and in the end nothing is
// leased twice.
func TestGroupWalk(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorld(t, wide, registry.Options{MaxTxnOps: 1024})
	registries := []*registry.Registry{w.Registry}
	for _, most := range []int{20, 128} {
		r, stop := start(t, w.store, registry.Options{Now: w.clock.Now, Quarantine: quarantine, MaxTxnOps: most})
		defer stop()
		w.ready(r)
		registries = append(registries, r)
	}
	const clients, agents, steps = 24, 40, 25
	var wg sync.WaitGroup
	for client := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		wg.Go(func() {
			for range steps {
				w.step(registries[random.IntN(len(registries))], random, agents)
			}
		})
	}
	wg.Wait()
	registrytest.Whole(t, w.store.Client)
	for i, r := range registries {
		if differs, err := r.Differs(t.Context()); err != nil || differs != "" {
			t.Errorf("the index of coordinator %d: %s, %v", i, differs, err)
		}
	}
}

// step does one thing at random for one agent at random.
func (w *world) step(r *registry.Registry, random *rand.Rand, agents int) {
	i := random.IntN(agents)
	at := i
	if random.IntN(4) == 0 {
		at += 1000
	}
	var err error
	switch random.IntN(5) {
	case 0:
		err = r.Release(w.t.Context(), ip(at))
	case 1:
		err = r.ReleaseOverlay(w.t.Context(), ip(at), "dcos")
	default:
		req := api.ClaimRequest{ID: fmt.Sprint("id-", i)}
		if random.IntN(3) > 0 {
			req.Overlays = []string{"dcos"}
		}
		var resp api.ClaimResponse
		if resp, err = r.Claim(w.t.Context(), ip(at), req); err == nil {
			w.holdsAt(resp)
		}
	}
	if err != nil {
		w.t.Errorf("agent %d: %v", i, err)
	}
}

// holdsAt fails the test unless the record is what resp says, at its revision.
func (w *world) holdsAt(resp api.ClaimResponse) {
	key := "/dcos-overlay/v1/agents/" + resp.Agent.IP.String()
	got, err := w.store.Client.Get(w.t.Context(), key, clientv3.WithRev(resp.Revision))
	if err != nil || len(got.Kvs) != 1 {
		w.t.Errorf("%s at revision %d: %d records, %v", key, resp.Revision, len(got.Kvs), err)
		return
	}
	var stored lease.Agent
	if err := json.Unmarshal(got.Kvs[0].Value, &stored); err != nil {
		w.t.Error(err)
	}
	if !reflect.DeepEqual(stored, resp.Agent) {
		w.t.Errorf("revision %d: the answer was %s, and the record is %s", resp.Revision, brief(resp.Agent), brief(stored))
	}
}
