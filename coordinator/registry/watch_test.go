package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
)

// reader reads one stream.
type reader struct {
	t       testing.TB
	stream  *registry.Stream
	pending []api.Event
}

func (w *world) watch(r *registry.Registry, since int64) *reader {
	w.t.Helper()
	s, err := r.Watch(w.t.Context(), since, "")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return &reader{t: w.t, stream: s}
}

func (r *reader) next() api.Event {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	for len(r.pending) == 0 {
		lines, err := r.stream.Next(ctx)
		if err != nil {
			r.t.Fatalf("next event: %v", err)
		}
		for _, line := range lines {
			var e api.Event
			if err := json.Unmarshal(line, &e); err != nil {
				r.t.Fatal(err)
			}
			r.pending = append(r.pending, e)
		}
	}
	e := r.pending[0]
	r.pending = r.pending[1:]
	return e
}

// expect reads as many events as there are words in want.
func (r *reader) expect(want string) (last api.Event) {
	r.t.Helper()
	var got []string
	for range strings.Fields(want) {
		last = r.next()
		word := string(last.Type)
		switch last.Type {
		case api.EventSet:
			word += ":" + last.Agent.IP.String()
		case api.EventDelete:
			word += ":" + last.IP.String()
		case api.EventNetwork:
			word += fmt.Sprintf(":%d", len(last.Network.Overlays))
		}
		got = append(got, word)
	}
	if g := strings.Join(got, " "); g != want {
		r.t.Fatalf("events:\n got %s\nwant %s", g, want)
	}
	return last
}

func TestWatch(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(1, "a", "dcos")
	r := w.watch(w.Registry, 0)
	for _, want := range []string{"snapshot", "network:3", "set:172.17.0.1"} {
		if e := r.expect(want); e.Revision != 0 {
			t.Errorf("%s has revision %d: a reader cut off here would resume with half a snapshot", want, e.Revision)
		}
	}
	synced := r.expect("synced")
	w.claim(2, "b")
	set := r.expect("set:172.17.0.2")
	if set.Revision <= synced.Revision {
		t.Errorf("revision %d after %d", set.Revision, synced.Revision)
	}

	// A move is one transaction: only its last event says that all is read.
	w.claim(3, "a")
	if e := r.expect("delete:172.17.0.1"); e.Revision != set.Revision {
		t.Errorf("the first event of a transaction has revision %d, want the one before it, %d", e.Revision, set.Revision)
	}
	moved := r.expect("set:172.17.0.3")
	if moved.Revision <= set.Revision {
		t.Errorf("revision %d after %d", moved.Revision, set.Revision)
	}
	w.release(2)
	gone := r.expect("delete:172.17.0.2")

	w.watch(w.Registry, synced.Revision).expect("set:172.17.0.2 delete:172.17.0.1 set:172.17.0.3 delete:172.17.0.2 synced")
	w.watch(w.Registry, moved.Revision).expect("delete:172.17.0.2 synced")
	w.watch(w.Registry, gone.Revision).expect("synced")
	// Of another etcd.
	w.watch(w.Registry, gone.Revision+1000).expect("snapshot network:3 set:172.17.0.3 synced")

	second, stop := start(t, w.store, registry.Options{})
	defer stop()
	w.watch(second, gone.Revision).expect("synced")
	// Older than what that one has seen itself.
	w.watch(second, synced.Revision).expect("snapshot network:3 set:172.17.0.3 synced")
	if got := w.Counts().Watchers; got != 5 {
		t.Errorf("%d watchers, want 5", got)
	}
}

// TestEpoch: a revision of another etcd is not gone on from, though there is
// such a revision here.
func TestEpoch(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	r := w.watch(w.Registry, 0)
	opening := r.expect("snapshot")
	synced := r.expect("network:3 synced")
	if synced.Epoch == "" || synced.Epoch != opening.Epoch {
		t.Errorf("the snapshot is of epoch %q, and synced of %q", opening.Epoch, synced.Epoch)
	}
	w.claim(1, "a")
	resume := func(r *registry.Registry, epoch, want string) {
		t.Helper()
		s, err := r.Watch(t.Context(), synced.Revision, epoch)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		got := (&reader{t: t, stream: s}).expect(want)
		check(t, "epoch", got.Epoch, synced.Epoch)
	}
	resume(w.Registry, synced.Epoch, "set:172.17.0.1 synced")
	resume(w.Registry, "", "set:172.17.0.1 synced")
	resume(w.Registry, "another", "snapshot network:3 set:172.17.0.1 synced")

	other := newWorld(t, sample, registry.Options{})
	if e := other.watch(other.Registry, 0).next(); e.Epoch == synced.Epoch {
		t.Errorf("two stores are of one epoch, %s", e.Epoch)
	}
}

// TestPingCarriesTheRevision: what no event tells of moves a reader on all the
// same, so that it can resume after a long silence.
func TestPingCarriesTheRevision(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(1, "a")
	r := w.watch(w.Registry, 0)
	synced := r.expect("snapshot network:3 set:172.17.0.1 synced")
	if err := w.Status(t.Context(), ip(1), api.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if lines, err := r.stream.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %q, %v", lines, err)
	}
	line, err := r.stream.Ping()
	var ping api.Event
	if err != nil || json.Unmarshal(line, &ping) != nil {
		t.Fatalf("got %q, %v", line, err)
	}
	if ping.Type != api.EventPing || ping.Revision <= synced.Revision {
		t.Errorf("got %q after revision %d", line, synced.Revision)
	}
}

func TestSlowReader(t *testing.T) {
	w := newWorld(t, sample, registry.Options{History: 4})
	r := w.watch(w.Registry, 0)
	since := r.expect("snapshot network:3 synced").Revision
	for i := range 4 {
		w.claim(i, fmt.Sprint(i))
	}
	w.watch(w.Registry, since).expect("set:172.17.0.0 set:172.17.0.1 set:172.17.0.2 set:172.17.0.3 synced")
	w.claim(4, "4")
	if lines, err := r.stream.Next(t.Context()); !errors.Is(err, registry.ErrTooSlow) {
		t.Errorf("got %q, %v", lines, err)
	}
	if e := w.watch(w.Registry, since).next(); e.Type != api.EventSnapshot {
		t.Errorf("resuming from what is gone began with %s", e.Type)
	}
}

// breakable is a watcher whose first watch the test can stop from reporting,
// by closing paused, and then break, by closing broken.
type breakable struct {
	clientv3.Watcher
	once           sync.Once
	paused, broken chan struct{}
	// committed gets one for each transaction that was tried.
	committed chan struct{}
}

type observedKV struct {
	clientv3.KV
	committed chan<- struct{}
}

func (kv observedKV) Txn(ctx context.Context) clientv3.Txn {
	return observedTxn{kv.KV.Txn(ctx), kv.committed}
}

type observedTxn struct {
	clientv3.Txn
	committed chan<- struct{}
}

func (t observedTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	return observedTxn{t.Txn.If(cs...), t.committed}
}

func (t observedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	return observedTxn{t.Txn.Then(ops...), t.committed}
}

func (t observedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	return observedTxn{t.Txn.Else(ops...), t.committed}
}

func (t observedTxn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := t.Txn.Commit()
	t.committed <- struct{}{}
	return resp, err
}

func (b *breakable) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	out := b.Watcher.Watch(ctx, key, opts...)
	b.once.Do(func() { out = b.wrap(out) })
	return out
}

func (b *breakable) wrap(in clientv3.WatchChan) clientv3.WatchChan {
	out := make(chan clientv3.WatchResponse)
	go func() {
		defer close(out)
		for {
			select {
			case <-b.paused:
				<-b.broken
				out <- clientv3.WatchResponse{Canceled: true, CompactRevision: 7}
				return
			case resp, ok := <-in:
				if !ok {
					return
				}
				out <- resp
			}
		}
	}()
	return out
}

// breakable runs another registry on w's etcd, with a watch that can be broken.
func (w *world) breakable() (*registry.Registry, *breakable) {
	w.t.Helper()
	return w.breakableWith(registry.Options{})
}

func (w *world) breakableWith(opts registry.Options) (*registry.Registry, *breakable) {
	w.t.Helper()
	opts.Now, opts.Quarantine = w.clock.Now, quarantine
	watcher := &breakable{
		Watcher: w.store.Client.Watcher,
		paused:  make(chan struct{}), broken: make(chan struct{}),
		committed: make(chan struct{}, 1000),
	}
	client := clientv3.NewCtxClient(w.t.Context())
	client.KV = observedKV{w.store.Client.KV, watcher.committed}
	client.Lease, client.Watcher = w.store.Client.Lease, watcher
	r, stop := start(w.t, &etcd.Store{Client: client}, opts)
	w.t.Cleanup(stop)
	return r, watcher
}

// TestMemberLeft: the watch is begun anew where the one before may be at a
// member that hangs, and readers go on as if nothing had happened.
func TestMemberLeft(t *testing.T) {
	left := make(chan struct{})
	w := newWorld(t, sample, registry.Options{MemberLeft: left})
	r := w.watch(w.Registry, 0)
	r.expect("snapshot network:3 synced")
	w.claim(1, "a")
	left <- struct{}{}
	w.until("the watch is another one", func() bool { return w.Counts().LostWatches == 1 })
	w.claim(2, "b")
	r.expect("set:172.17.0.1 set:172.17.0.2")
}

// TestCompaction: a watch that etcd has compacted away is begun anew, and open
// streams are told what happened meanwhile, deletes included.
func TestCompaction(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	victim, watcher := w.breakable()
	w.claim(1, "a", "dcos")
	w.claim(2, "b", "dcos")
	w.claim(3, "c", "dcos")
	w.until("the victim knows all", func() bool { return victim.Counts().Agents == 3 })
	r := w.watch(victim, 0)
	for e := r.next(); e.Type != api.EventSynced; e = r.next() {
	}

	close(watcher.paused)
	w.release(1)
	w.claim(2, "b", "dcos6")
	w.claim(4, "d", "dcos")
	close(watcher.broken)

	got := map[string]bool{}
	var last api.Event
	for range 3 {
		last = r.next()
		got[fmt.Sprint(last.Type, last.IP)] = true
		if last.Agent != nil {
			got[brief(*last.Agent)] = true
		}
	}
	for _, want := range []string{
		"delete172.17.0.1",
		"172.17.0.2 44.128.0.2/20 fd01:a::2/64 dcos[9.0.1.0/24] dcos6[fd01:b::/80]",
		"172.17.0.4 44.128.0.4/20 fd01:a::4/64 dcos[9.0.3.0/24]",
	} {
		if !got[want] {
			t.Errorf("the stream did not tell %q; it told %v", want, got)
		}
	}
	w.watch(victim, last.Revision).expect("synced")
	w.watch(victim, last.Revision-1).expect("snapshot network:3")
	resp, err := victim.Claim(t.Context(), ip(5), api.ClaimRequest{ID: "e", Overlays: []string{"dcos"}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "a claim after all that", brief(resp.Agent), "172.17.0.5 44.128.0.5/20 fd01:a::5/64 dcos[9.0.4.0/24]")
}
