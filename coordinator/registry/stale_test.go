package registry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// TestStaleIndex: a registry that has not heard of what another one did claims
// by what it believes. It must not succeed before it knows better.
func TestStaleIndex(t *testing.T) {
	for _, test := range []struct {
		name string
		// meanwhile is what it has not heard of; agent 1, "a", has a VTEP.
		meanwhile func(w *world)
		agent     int
		id        string
		want      string
	}{
		{"the record changed", func(w *world) { w.claim(1, "a", "dcos") }, 1, "a",
			"172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80]"},
		{"the record is gone", func(w *world) { w.release(1) }, 1, "a",
			"172.17.0.1 44.128.0.2/20 fd01:a::2/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80]"},
		{"the agent moved", func(w *world) { w.claim(2, "a") }, 1, "b",
			"172.17.0.1 44.128.0.2/20 fd01:a::2/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80]"},
		{"the record at the old address changed", func(w *world) {
			c := lease.DefaultNetworkConfig()
			c.OverlayMTU = 1400
			if _, err := w.Claim(t.Context(), ip(1), api.ClaimRequest{ID: "a", NetworkConfig: &c}); err != nil {
				t.Fatal(err)
			}
		}, 2, "a",
			"172.17.0.2 44.128.0.1/20 fd01:a::1/64 mtu=1400 dcos[9.0.0.0/24] dcos6[fd01:b::/80]"},
		{"the subnet is taken", func(w *world) { w.claim(2, "b", "dcos", "dcos6") }, 3, "c",
			"172.17.0.3 44.128.0.3/20 fd01:a::3/64 dcos[9.0.1.0/24] dcos6[fd01:b:0:0:1::/80]"},
		{"the subnet rests", func(w *world) { w.claim(2, "b", "dcos"); w.release(2) }, 3, "c",
			"172.17.0.3 44.128.0.3/20 fd01:a::3/64 dcos[9.0.1.0/24] dcos6[fd01:b::/80]"},
		{"the configuration changed", func(w *world) {
			more := strings.Replace(sample, "}\n  ]}", `}, {"name": "late", "subnet": "10.1.0.0/16", "prefix": 24}]}`, 1)
			if _, err := w.Seed(t.Context(), parse(t, more)); err != nil {
				t.Fatal(err)
			}
		}, 1, "a",
			"172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80] late[10.1.0.0/24]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, sample, registry.Options{})
			victim, watcher := w.breakable()
			w.claim(1, "a")
			w.until("the victim knows the first agent", func() bool { return victim.Counts().Agents == 1 })
			close(watcher.paused)
			test.meanwhile(w)
			var got api.ClaimResponse
			err := watcher.afterFirstTry(func() (err error) {
				got, err = victim.Claim(t.Context(), ip(test.agent), api.ClaimRequest{ID: test.id, AllOverlays: true})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			check(t, "claim", brief(got.Agent), test.want)
			registrytest.Whole(t, w.store.Client)
		})
	}
}

// afterFirstTry runs call, and breaks the watch once it has tried to commit by
// what the paused watch has told.
func (b *breakable) afterFirstTry(call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	<-b.committed
	close(b.broken)
	return <-done
}

// TestStaleAnswer: what a registry believes is not told an agent as its lease
// when it no longer is, even if nothing would have to be written.
func TestStaleAnswer(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.claim(1, "a", "dcos")
	w.until("the victim knows the agent", func() bool { return victim.Counts().Agents == 1 })
	close(watcher.paused)
	w.release(1)
	var got api.ClaimResponse
	err := watcher.afterFirstTry(func() (err error) {
		got, err = victim.Claim(t.Context(), ip(1), api.ClaimRequest{ID: "a", Overlays: []string{"dcos"}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "claim", brief(got.Agent), "172.17.0.1 44.128.0.2/20 fd01:a::2/64 dcos[9.0.1.0/24]")
}

// TestStaleRelease: a release takes all that the agent holds, also what the
// registry has not heard of.
func TestStaleRelease(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.claim(1, "a", "dcos")
	w.until("the victim knows the agent", func() bool { return victim.Counts().Agents == 1 })
	close(watcher.paused)
	w.claim(1, "a", "dcos6")
	if err := watcher.afterFirstTry(func() error { return victim.Release(t.Context(), ip(1)) }); err != nil {
		t.Fatal(err)
	}
	check(t, "agents", len(registrytest.Whole(t, w.store.Client)), 0)
}

// TestStaleStatus: a status does not undo what the registry has not heard of.
func TestStaleStatus(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.claim(1, "a", "dcos")
	w.until("the victim knows the agent", func() bool { return victim.Counts().Agents == 1 })
	close(watcher.paused)
	w.claim(1, "a", "dcos6")
	err := watcher.afterFirstTry(func() error { return victim.Status(t.Context(), ip(1), report("dcos", lease.StatusOK, "", 1)) })
	if err != nil {
		t.Fatal(err)
	}
	a := registrytest.Whole(t, w.store.Client)[ip(1)]
	check(t, "record", brief(a), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24] dcos6[fd01:b::/80]")
	check(t, "state", a.Overlays[0].State.Status, lease.StatusOK)
}

// TestStaleRefusal: what another coordinator has acknowledged is not refused
// by one that has not heard of it yet.
func TestStaleRefusal(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.claim(1, "a", "dcos")
	w.until("the victim knows the agent", func() bool { return victim.Counts().Agents == 1 })
	close(watcher.paused)
	w.claim(1, "a", "dcos6")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := victim.Status(ctx, ip(1), report("dcos6", lease.StatusOK, "", 1))
	if !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("by what it believes it says %v, and should wait", err)
	}
	close(watcher.broken)
	if err := victim.Status(t.Context(), ip(1), report("dcos6", lease.StatusOK, "", 1)); err != nil {
		t.Error(err)
	}
	err = victim.Status(t.Context(), ip(1), report("nonsense", lease.StatusOK, "", 1))
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.Code != api.CodeInvalid {
		t.Errorf("got %v, want a refusal", err)
	}
}
