package registry_test

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
)

// mesosWord is what Mesos says, by the test's will.
type mesosWord struct {
	mu   sync.Mutex
	view *registry.MesosView
}

func (m *mesosWord) say(v *registry.MesosView) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view = v
}

func (m *mesosWord) hear() (registry.MesosView, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.view == nil {
		return registry.MesosView{}, false
	}
	return *m.view, true
}

// having is a view with agents of the ids a1, a2 … at their addresses.
func having(agents ...int) *registry.MesosView {
	v := &registry.MesosView{Registered: map[netip.Addr]string{}, Removed: map[netip.Addr]string{}, Recovered: map[string]bool{}, RemovedIDs: map[string]bool{}}
	for _, i := range agents {
		v.Registered[ip(i)] = mesosID(i)
	}
	return v
}

func mesosID(i int) string { return "a" + string(rune('0'+i)) }

// known are the agents that are taken down as Mesos's, with ! if they are gone.
func (w *world) known() string {
	w.t.Helper()
	resp, err := w.store.Client.Get(w.t.Context(), "/dcos-overlay/v1/mesos/", clientv3.WithPrefix())
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, kv := range resp.Kvs {
		_, last, _ := strings.Cut(string(kv.Key), "mesos/172.17.0.")
		if strings.Contains(string(kv.Value), "gone_since") {
			last += "!"
		}
		out = append(out, last)
	}
	return strings.Join(out, " ")
}

// untilKnown waits until this is taken down, and the registry has heard of it.
func (w *world) untilKnown(want string) {
	w.t.Helper()
	w.until("Mesos's agents are "+want, func() bool {
		return w.known() == want && w.Counts().Gone == strings.Count(want, "!")
	})
}

// TestGone: who is gone from Mesos keeps what it holds for the grace period,
// and longer if it lives; whom Mesos never had is left alone; and no view, or
// one of a master that recovers, says nothing of who is missing.
func TestGone(t *testing.T) {
	var word mesosWord
	opts := registry.Options{AliveTTL: time.Second, Mesos: word.hear, MesosGrace: time.Hour}
	w := newWorld(t, sample, opts)
	for i := 1; i <= 6; i++ {
		w.claim(i, "id"+mesosID(i), "dcos")
	}
	const dockerOnly, alive = 3, 2
	word.say(having(1, alive, 4, 5, 6))
	w.untilKnown("1 2 4 5 6")

	view := having(4)
	view.Removed[ip(1)], view.Removed[ip(alive)] = mesosID(1), mesosID(alive)
	view.RemovedIDs[mesosID(6)] = true // one that the master had only recovered
	view.Recovered["somebody"] = true
	word.say(view)
	w.untilKnown("1! 2! 4 5 6!")
	if since := w.how(w.Registry, 1).GoneSince; !since.Equal(w.clock.Now()) {
		t.Errorf("gone since %s", since)
	}
	check(t, "gone", w.Counts().Gone, 3)

	view = having(4, 6)
	view.Recovered[mesosID(5)] = true
	word.say(view)
	w.untilKnown("1! 2! 4 5 6")
	word.say(having(4, 6))
	w.untilKnown("1! 2! 4 5! 6")
	word.say(having(4, 5, 6))
	w.untilKnown("1! 2! 4 5 6")

	// Another registry goes on from there; with no word of Mesos nobody does.
	word.say(nil)
	for range 4 {
		w.clock.pass(time.Hour)
		w.claim(dockerOnly, "id"+mesosID(dockerOnly), "dcos")
		w.until("housekeeping has had a turn", func() bool {
			w.report(alive)
			w.clock.pass(time.Second)
			return !w.how(w.Registry, dockerOnly).SilentSince.IsZero()
		})
	}
	check(t, "agents without word of Mesos", w.Counts().Agents, 6)
	opts.Now, opts.Quarantine = w.clock.Now, quarantine
	second, stop := start(t, w.store, opts)
	defer stop()
	w.ready(second)
	word.say(having(4, 5, 6))
	w.until("the first is released", func() bool {
		w.report(alive)
		w.clock.pass(time.Second)
		return w.Counts().Agents == 5 && second.Counts().Agents == 5
	})
	w.report(alive)
	left := registrytest.Whole(t, w.store.Client)
	for _, i := range []int{alive, dockerOnly, 4, 5, 6} {
		if _, ok := left[ip(i)]; !ok {
			t.Errorf("agent %d is released", i)
		}
	}
	w.untilKnown("2! 4 5 6")
	// Who claims is there: the grace period begins anew.
	before := w.how(w.Registry, alive).GoneSince
	w.claim(alive, "id"+mesosID(alive), "dcos")
	w.until("it is not gone, or anew", func() bool { return !w.how(w.Registry, alive).GoneSince.Equal(before) })
}

// TestStaleGone: a registry that has not heard that an agent lives, or that
// Mesos has it again, takes nothing from it.
func TestStaleGone(t *testing.T) {
	const key = "/dcos-overlay/v1/mesos/172.17.0.1"
	for name, meanwhile := range map[string]func(w *world){
		"it lives": func(w *world) { w.report(1) },
		"Mesos has it": func(w *world) {
			if _, err := w.store.Client.Put(t.Context(), key, `{"id":"a1"}`); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sample, registry.Options{})
			victim, watcher := w.breakable()
			w.claim(1, "a", "dcos")
			if _, err := w.store.Client.Put(t.Context(), key, `{"id":"a1","gone_since":"2020-01-01T00:00:00Z"}`); err != nil {
				t.Fatal(err)
			}
			w.until("the victim knows that it is gone", func() bool { return victim.Counts().Gone == 1 })
			close(watcher.paused)
			meanwhile(w)
			if err := watcher.afterFirstTry(func() error { return victim.ReleaseGone(t.Context(), ip(1)) }); err != nil {
				t.Fatal(err)
			}
			check(t, "record", brief(registrytest.Whole(t, w.store.Client)[ip(1)]), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24]")
		})
	}
}
