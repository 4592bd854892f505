package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/lease"
)

// quiet is a registry without etcd that follows an index of agents, none of
// which is alive; those in silent are known to be so since then.
func quiet(now *time.Time, agents int, silent map[int]time.Time) *Registry {
	r := New(nil, Options{AliveTTL: time.Minute, ReclaimAfter: time.Hour, Now: func() time.Time { return *now }})
	r.following, r.looked = true, time.Now()
	for i := range agents {
		ip := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		r.idx.agents[ip] = &agentEntry{Agent: &lease.Agent{IP: ip}}
		if since, ok := silent[i]; ok {
			r.idx.silent[ip] = silentEntry{since: since, rev: 1}
		}
		r.idx.stand(ip)
	}
	return r
}

func words(all []silence) string {
	n := map[string]int{}
	for _, s := range all {
		n[map[bool]string{true: "reclaim", false: "mark"}[s.reclaim]]++
	}
	return fmt.Sprintf("mark %d, reclaim %d", n["mark"], n["reclaim"])
}

// TestSilencesWait: however long agents were silent by the record, they get a
// whole TTL to report to a coordinator that could not hear them.
func TestSilencesWait(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := begin
	r := quiet(&now, 3, map[int]time.Time{0: begin.Add(-24 * time.Hour), 1: begin.Add(-59 * time.Minute)})
	look := func(what, want string) {
		t.Helper()
		if got := words(r.silences()); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	look("after a start", "mark 0, reclaim 0")
	now = now.Add(59 * time.Second)
	look("short of the TTL", "mark 0, reclaim 0")
	now = now.Add(time.Second)
	look("after the TTL", "mark 1, reclaim 2")

	r.following = false
	look("while etcd is away", "mark 0, reclaim 0")
	r.following = true
	look("when it is back", "mark 0, reclaim 0")
	now = now.Add(time.Minute)
	look("a TTL later", "mark 1, reclaim 2")

	r.looked = time.Now().Add(-time.Hour)
	look("after a halt of the process", "mark 0, reclaim 0")
	now = now.Add(time.Minute)
	look("a TTL later", "mark 1, reclaim 2")

	alive := func(value []byte) {
		if err := r.idx.applyAlive("10.0.0.0", keyValue{value: value}); err != nil {
			t.Fatal(err)
		}
	}
	alive([]byte("{}"))
	look("when one has reported", "mark 1, reclaim 1")
	alive(nil)
	look("when that runs out", "mark 1, reclaim 1")
	r.opts.ReclaimAfter = 0
	now = now.Add(time.Hour)
	look("without --reclaim-after", "mark 1, reclaim 0")
}

// TestAnotherEtcd: streams that are open end when the index is of another
// etcd, and what they resume with is not gone on from.
func TestAnotherEtcd(t *testing.T) {
	r := New(nil, Options{})
	load := func(store string, rev int64) *index {
		x := newIndex()
		x.rev, x.baseRev, x.store = rev, 1, store
		return x
	}
	if err := r.replace(load("one", 10)); err != nil {
		t.Fatal(err)
	}
	r.begin(t.Context(), func() {})
	s, err := r.Watch(t.Context(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.replace(load("one", 12)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if lines, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("of the same etcd: %q, %v", lines, err)
	}
	if err := r.replace(load("two", 12)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if lines, err := s.Next(ctx); !errors.Is(err, ErrTooSlow) {
		t.Errorf("of another etcd: %q, %v", lines, err)
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := quiet(&now, 0, nil)
	r.fresh = freshness{at: now, ok: true}
	now = now.Add(time.Minute)
	look := func(what string, seconds int64, stale bool) {
		t.Helper()
		if s, old := r.Age(); s != seconds || old != stale {
			t.Errorf("%s: %d, %v; want %d, %v", what, s, old, seconds, stale)
		}
	}
	look("in step", 0, false)
	r.fresh.ok = false
	look("no answer to the last question", 60, true)
	r.fresh = freshness{at: now, ok: true}
	r.following = false
	look("the watch broke just now", 1, true)
	now = now.Add(1500 * time.Millisecond)
	look("a little later", 2, true)
}
