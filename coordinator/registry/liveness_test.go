package registry_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

func (w *world) report(i int) {
	w.t.Helper()
	if err := w.Status(w.t.Context(), ip(i), api.StatusRequest{}); err != nil {
		w.t.Fatalf("status of %s: %v", ip(i), err)
	}
}

// how is agent i's status as r tells it.
func (w *world) how(r *registry.Registry, i int) api.AgentStatus {
	return r.How(ip(i))
}

const clonedMessage = "id a is asked for by 172.17.0.2 and is in use at 172.17.0.1, which has reported within the last 1s: if that is this host's old address, the claim succeeds as soon as nothing has reported from there for so long; if it is another host, one of them is a copy: give this one an id of its own by removing its agent-id and lease.json"

// TestCopiedID: two machines with one id do not take the lease from each other;
// one machine that moves gets it when its old address is quiet.
func TestCopiedID(t *testing.T) {
	w := newWorld(t, sample, registry.Options{AliveTTL: time.Second})
	w.claim(1, "a", "dcos")
	w.report(1)
	_, err := w.Claim(t.Context(), ip(2), api.ClaimRequest{ID: "a", Overlays: []string{"dcos"}})
	wantCode(t, err, api.CodeConflict, clonedMessage)
	check(t, "the first", brief(w.claim(1, "a")), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24]")
	w.until("the old address is quiet", func() bool { return !w.Alive(ip(1)) })
	check(t, "then it is a move", brief(w.claim(2, "a")), "172.17.0.2 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24]")
}

// TestStaleMove: what a registry has not heard of counts, too.
func TestStaleMove(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.claim(1, "a", "dcos")
	w.until("the victim knows the agent", func() bool { return victim.Counts().Agents == 1 })
	close(watcher.paused)
	w.report(1)
	err := watcher.afterFirstTry(func() error {
		_, err := victim.Claim(t.Context(), ip(2), api.ClaimRequest{ID: "a"})
		return err
	})
	if e, ok := err.(*api.Error); !ok || e.Code != api.CodeConflict {
		t.Errorf("got %v", err)
	}
}

func TestDeleteOfTheLiving(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	all := []netip.Addr{ip(1), ip(2), ip(3), ip(9)}
	for i := 1; i <= 3; i++ {
		w.claim(i, string(rune('a'+i)), "dcos")
	}
	w.report(2)
	w.report(3)
	wantCode(t, w.Delete(t.Context(), all, false), api.CodeConflict,
		`nothing is deleted, for these agents are alive: 172.17.0.2, 172.17.0.3: stop their companions and wait 1m0s, or delete with "force": true`)
	check(t, "agents", w.Counts().Agents, 3)
	if err := w.Delete(t.Context(), []netip.Addr{ip(1), ip(9)}, false); err != nil {
		t.Error(err)
	}
	if err := w.Delete(t.Context(), all, true); err != nil {
		t.Error(err)
	}
	check(t, "agents", w.Counts().Agents, 0)
}

// TestStaleDelete: an agent that a registry has not heard of as alive is not
// deleted.
func TestStaleDelete(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.claim(1, "a", "dcos")
	w.until("the victim knows the agent", func() bool { return victim.Counts().Agents == 1 })
	close(watcher.paused)
	w.report(1)
	err := watcher.afterFirstTry(func() error { return victim.Delete(t.Context(), []netip.Addr{ip(1)}, false) })
	wantCode(t, err, api.CodeConflict, "agent 172.17.0.1 has reported meanwhile, and is not deleted")
}

// TestLiveness: what is told of an agent, and that since when it is silent is
// known to all coordinators and for ever.
func TestLiveness(t *testing.T) {
	w := newWorld(t, sample, registry.Options{AliveTTL: time.Second})
	w.claim(1, "a", "dcos")
	req := report("dcos", lease.StatusOK, "", 7)
	req.HostRoutes = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.1.0.0/16")}
	if err := w.Status(t.Context(), ip(1), req); err != nil {
		t.Fatal(err)
	}
	s := w.how(w.Registry, 1)
	if !s.Alive || !s.LastSeen.Equal(w.clock.Now()) || !s.SilentSince.IsZero() || s.Addresses["dcos"].Mesos.Used != 7 || len(s.HostRoutes) != 2 {
		t.Errorf("got %+v", s)
	}
	second, stop := start(t, w.store, registry.Options{Now: w.clock.Now, AliveTTL: time.Second})
	defer stop()
	w.ready(second)
	if s := w.how(second, 1); !s.Alive || !s.LastSeen.IsZero() {
		t.Errorf("another registry says %+v", s)
	}
	reported := w.clock.Now()
	w.until("the agent is silent", func() bool {
		w.clock.pass(time.Second)
		return !w.how(second, 1).SilentSince.IsZero()
	})
	since := w.how(second, 1).SilentSince
	w.until("both know it", func() bool { return w.how(w.Registry, 1).SilentSince.Equal(since) })
	if s := w.how(w.Registry, 1); s.Alive || s.Addresses != nil || !s.LastSeen.Equal(reported) {
		t.Errorf("silent, it is %+v", s)
	}
	stop2 := w.restarted(func(r *registry.Registry) {
		check(t, "after a restart", w.how(r, 1).SilentSince, since)
	})
	stop2()
	w.report(1)
	if s := w.how(w.Registry, 1); !s.Alive || !s.SilentSince.IsZero() {
		t.Errorf("after a report it is %+v", s)
	}
}

// restarted runs look on a registry that has just begun.
func (w *world) restarted(look func(*registry.Registry)) (stop func()) {
	w.t.Helper()
	r, stop := start(w.t, w.store, registry.Options{Now: w.clock.Now, AliveTTL: time.Second})
	w.ready(r)
	look(r)
	return stop
}

// TestReclaim: two registries take back, at once, what silent agents hold; not
// from one that lives, and not too early.
func TestReclaim(t *testing.T) {
	opts := registry.Options{AliveTTL: time.Second, ReclaimAfter: time.Hour}
	w := newWorld(t, sample, opts)
	opts.Now, opts.Quarantine = w.clock.Now, quarantine
	second, stop := start(t, w.store, opts)
	defer stop()
	w.ready(second)
	const agents = 20
	for i := range agents {
		w.claim(i, string(rune('a'+i)), "dcos")
	}
	w.report(1)
	w.until("all but one are silent", func() bool {
		w.report(0)
		w.clock.pass(time.Second)
		for i := 1; i < agents; i++ {
			if w.how(w.Registry, i).SilentSince.IsZero() {
				return false
			}
		}
		return true
	})
	silent := w.clock.Now()
	w.until("the silent ones are gone", func() bool {
		w.report(0)
		w.clock.pass(10 * time.Second)
		return w.Counts().Agents == 1 && second.Counts().Agents == 1
	})
	if took := w.clock.Now().Sub(silent); took < time.Hour-20*time.Minute {
		t.Errorf("they were gone after %s", took)
	}
	left := registrytest.Whole(t, w.store.Client)
	if _, ok := left[ip(0)]; !ok {
		t.Errorf("left is %v", left)
	}
}

// TestStaleSilence: a registry that has not heard that an agent is back neither
// marks it as silent nor takes anything from it.
func TestStaleSilence(t *testing.T) {
	for _, marked := range []bool{false, true} {
		w := newWorld(t, sample, registry.Options{})
		victim, watcher := w.breakable()
		w.claim(1, "a", "dcos")
		since := w.clock.Now()
		step := victim.MarkSilent
		if marked {
			if err := w.MarkSilent(t.Context(), ip(1), since); err != nil {
				t.Fatal(err)
			}
			step = victim.Reclaim
		}
		w.until("the victim knows the agent", func() bool {
			return victim.Counts().Agents == 1 && w.how(victim, 1).SilentSince.IsZero() != marked
		})
		close(watcher.paused)
		w.report(1)
		if err := watcher.afterFirstTry(func() error { return step(t.Context(), ip(1), since) }); err != nil {
			t.Fatal(err)
		}
		check(t, "record", brief(registrytest.Whole(t, w.store.Client)[ip(1)]), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24]")
		resp, err := w.store.Client.Get(t.Context(), "/dcos-overlay/v1/silent/172.17.0.1")
		if err != nil || len(resp.Kvs) != 0 || !w.Alive(ip(1)) {
			t.Errorf("marked before: %v; it is alive: %v, and the mark is %v, %v", marked, w.Alive(ip(1)), resp, err)
		}
	}
}

// TestClaimEndsSilence: a host without companion is heard of by its claims.
func TestClaimEndsSilence(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(1, "a")
	if err := w.MarkSilent(t.Context(), ip(1), w.clock.Now()); err != nil {
		t.Fatal(err)
	}
	w.until("it is silent", func() bool { return !w.how(w.Registry, 1).SilentSince.IsZero() })
	w.claim(1, "a")
	if s := w.how(w.Registry, 1); !s.SilentSince.IsZero() {
		t.Errorf("after a claim it is %+v", s)
	}
}
