// Package registry is the cluster's truth as one coordinator knows it: an
// index of etcd's prefix kept by watching, and the transactions that change
// it. Several registries may work on one etcd; what one believes never decides
// who owns what, the transactions' comparisons do.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

const (
	// DefaultQuarantine is how long a released subnet or VTEP address rests.
	DefaultQuarantine = 10 * time.Minute
	// DefaultAliveTTL is how long an agent counts as alive after its status.
	DefaultAliveTTL = time.Minute
	// DefaultHistory is how many events are kept for readers that resume or
	// are slow: at some 500 bytes each, 8 MB.
	DefaultHistory = 16384

	// maxAttempts bounds a compare-and-swap loop. Each lost race is another
	// call's success, so this many in a row mean that something is broken.
	maxAttempts = 100
	// progressDelay is how long the watch may lag before it is asked how far
	// it is: on a shared etcd the latest revision may be somebody else's key,
	// which no event tells of.
	progressDelay = 20 * time.Millisecond
	// indexWait bounds how long a call that has succeeded waits for the
	// index, so that a later look at this coordinator shows its result.
	indexWait = time.Second

	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// ErrUnavailable is the cause when etcd can't be reached or is not able to
// serve. What the call asked for may or may not have happened; asking again
// is safe.
var ErrUnavailable = errors.New("etcd does not answer")

// Options are what a Registry is made of; zero fields mean the defaults.
type Options struct {
	Quarantine time.Duration
	AliveTTL   time.Duration
	// ReclaimAfter is how long an agent may be silent before what it holds is
	// released; 0 means for ever.
	ReclaimAfter time.Duration
	// MaxTxnOps is how many operations etcd takes in one transaction.
	MaxTxnOps int
	// Mesos tells what Mesos says of its agents; false while that is not known.
	// Nil means that nobody asks Mesos.
	Mesos func() (MesosView, bool)
	// MesosGrace is how long an agent may be gone from Mesos before what it
	// holds is released.
	MesosGrace time.Duration
	// MemberLeft is told when a member of etcd is asked no more, at which the
	// watch may be; nil for never.
	MemberLeft <-chan struct{}
	// Trouble tells why etcd takes no changes, if that is known; it may be nil.
	Trouble func() error
	// History is the number of events kept.
	History int
	Now     func() time.Time
	Log     *slog.Logger
}

// Registry is safe for concurrent use. Run must be running for anything but
// Seed to work.
type Registry struct {
	client *clientv3.Client
	opts   Options
	group  committer

	// seen is when each agent last reported to this coordinator: a time.Time
	// by netip.Addr.
	seen sync.Map

	mu sync.Mutex
	// Everything below is guarded by mu.
	idx  *index
	hist *history
	// following is true while idx is loaded and its watch has not broken.
	following bool
	// whole is false while idx can't be gone on from.
	whole bool
	// changed is closed and replaced whenever idx or following changes.
	changed chan struct{}
	// settling are the holds of transactions that have succeeded, kept until
	// idx has seen what they wrote.
	settling []settled
	// watching is the context of the present watch, which asking for its
	// progress needs; nil when there is none.
	watching context.Context
	// unwatch breaks the present watch; nil when there is none.
	unwatch  context.CancelFunc
	watchers int
	// quiet is since when this coordinator knows that an agent is not alive.
	quiet map[netip.Addr]time.Time
	// looked is when quiet was brought up to date last. It is not of
	// Options.Now, since it is to show when this process did not run.
	looked time.Time
	// clear is since when agents could report without a break, as far as this
	// coordinator saw; zero while they can't. It is not of Options.Now either.
	clear time.Time
	fresh freshness
	// conflicts counts the transactions that lost a race.
	conflicts int64
	// lostWatches counts the watches that broke.
	lostWatches int64

	// spared are agents that would be released for being gone from Mesos, and
	// are alive. Housekeeping alone has to do with it.
	spared map[netip.Addr]bool
	// chores asks for housekeeping at once.
	chores chan struct{}
	// observe is told of each call of etcd; nil when nobody wants to know.
	observe atomic.Pointer[Observer]
}

// Observer is told of a call of etcd: what it was for, how long it took, and
// how it ended.
type Observer func(op string, took time.Duration, err error)

// Observe makes f the one that is told of each call of etcd.
func (r *Registry) Observe(f Observer) { r.observe.Store(&f) }

// timed begins a call of etcd; what it returns is called at its end.
func (r *Registry) timed(op string) func(error) {
	begin := time.Now()
	return func(err error) {
		if f := r.observe.Load(); f != nil {
			(*f)(op, time.Since(begin), err)
		}
	}
}

// settled is the holds of a transaction that succeeded at revision rev.
type settled struct {
	rev   int64
	holds []hold
	// indexed is closed when idx has seen rev.
	indexed chan struct{}
}

// New makes a Registry; it does not talk to etcd.
func New(client *clientv3.Client, opts Options) *Registry {
	if opts.Quarantine == 0 {
		opts.Quarantine = DefaultQuarantine
	}
	if opts.AliveTTL == 0 {
		opts.AliveTTL = DefaultAliveTTL
	}
	if opts.History == 0 {
		opts.History = DefaultHistory
	}
	if opts.MaxTxnOps == 0 {
		opts.MaxTxnOps = DefaultMaxTxnOps
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Registry{
		client:  client,
		opts:    opts,
		group:   committer{patience: defaultPatience},
		idx:     newIndex(),
		hist:    newHistory(opts.History),
		changed: make(chan struct{}),
		quiet:   map[netip.Addr]time.Time{},
		chores:  make(chan struct{}, 1),
	}
}

// Run keeps the index until ctx ends. It never gives up: a watch that breaks,
// by compaction or because etcd went away, is begun anew, if need be from a
// fresh load.
// Beside that it does the housekeeping, and watches how old the index is.
func (r *Registry) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.keepHouse(ctx) })
	wg.Go(func() { r.feelPulse(ctx) })
	wg.Go(func() { r.changeMember(ctx) })
	backoff := minBackoff
	for {
		loaded, err := r.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if loaded {
			backoff = minBackoff
			r.mu.Lock()
			r.lostWatches++
			r.mu.Unlock()
		}
		r.opts.Log.Warn("the watch of etcd broke; it is begun anew", "error", err, "in", backoff)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// follow applies what etcd reports until the watch breaks. It goes on from the
// index, or loads it first where that can't be.
func (r *Registry) follow(ctx context.Context) (began bool, err error) {
	// Without a leader the watch would be silent for ever: let it break.
	watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	rev, resumed := r.resumable(ctx)
	if !resumed {
		x, err := r.load(ctx, pageSize)
		if err != nil {
			return false, err
		}
		if err := r.replace(x); err != nil {
			return false, err
		}
		rev = x.rev
	}
	watch := r.client.Watch(watching, prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1), clientv3.WithProgressNotify())
	r.begin(watching, cancel)
	defer r.stopFollowing()
	return true, fmt.Errorf("watch %s: %w", prefix, r.consume(watch))
}

// replace puts x in the place of the index. Streams that are open are told the
// difference; what happened in between is not known, so a reader that comes
// back later must begin anew.
func (r *Registry) replace(x *index) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []api.Event
	switch {
	case r.idx.rev == 0:
	case r.idx.epoch() == x.epoch():
		events = x.changes(r.idx)
	default:
		// Revisions of another store say nothing about what differs.
		r.opts.Log.Warn("etcd is another one than before: all readers begin anew", "epoch", x.epoch())
		r.hist.cutOff()
		r.seen.Clear()
	}
	r.idx = x
	// Holds belonged to the pools of the old index. Whoever still has one
	// may now collide with another call, and then loses the race in etcd.
	for i := range r.settling {
		r.settling[i].holds = nil
	}
	r.settle()
	err := r.record(x.rev, events)
	r.hist.cut()
	r.fresh = freshness{at: r.opts.Now(), ok: true, etcdRev: x.rev}
	r.notify()
	return err
}

func (r *Registry) stopFollowing() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.following = false
	r.watching, r.unwatch = nil, nil
	r.notify()
}

// take applies one message of the watch, which holds whole transactions.
func (r *Registry) take(resp clientv3.WatchResponse) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []api.Event
	for i, e := range resp.Events {
		kv := keyValue{key: string(e.Kv.Key), rev: e.Kv.ModRevision}
		if e.Type == clientv3.EventTypePut {
			kv.value, kv.lease = e.Kv.Value, e.Kv.Lease
		}
		event, err := r.idx.apply(kv)
		if err != nil {
			r.opts.Log.Error("passed over a key that can't be read", "error", err)
		}
		if event != nil {
			events = append(events, *event)
		}
		if i == len(resp.Events)-1 || resp.Events[i+1].Kv.ModRevision != kv.rev {
			r.idx.rev = kv.rev
			if err := r.record(kv.rev, events); err != nil {
				return err
			}
			events = nil
		}
	}
	// A progress report has no events, and says how far the watch is.
	if len(resp.Events) == 0 && resp.Header.Revision > r.idx.rev {
		r.idx.rev = resp.Header.Revision
		if err := r.record(r.idx.rev, nil); err != nil {
			return err
		}
	}
	r.settle()
	r.notify()
	return nil
}

// record adds the events of one transaction to the history. However many of
// them are about the configuration, one with the whole of it says it all.
func (r *Registry) record(rev int64, events []api.Event) error {
	for _, e := range events {
		if e.Type == api.EventDelete && r.idx.agents[e.IP] == nil {
			r.seen.Delete(e.IP)
		}
	}
	whole := make([]api.Event, 0, len(events))
	isNetwork := func(e api.Event) bool { return e.Type == api.EventNetwork }
	if slices.ContainsFunc(events, isNetwork) {
		whole = append(whole, r.idx.networkEvent())
	}
	for _, e := range events {
		if !isNetwork(e) {
			whole = append(whole, e)
		}
	}
	if err := r.hist.add(rev, whole, r.idx.recordOf); err != nil {
		return fmt.Errorf("encode the events of revision %d: %w", rev, err)
	}
	return nil
}

// settle ends the holds whose units the index knows by now.
func (r *Registry) settle() {
	r.settling = slices.DeleteFunc(r.settling, func(s settled) bool {
		if s.rev > r.idx.rev {
			return false
		}
		for _, h := range s.holds {
			h.drop()
		}
		close(s.indexed)
		return true
	})
}

func (r *Registry) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// await waits until ok, called with the lock held, is true. nudge, which may
// be nil, is called now and then while it is not.
func (r *Registry) await(ctx context.Context, ok func() bool, nudge func()) error {
	var delay <-chan time.Time
	for {
		r.mu.Lock()
		done, changed := ok(), r.changed
		r.mu.Unlock()
		if done {
			return nil
		}
		if nudge != nil && delay == nil {
			delay = time.After(progressDelay)
		}
		select {
		case <-changed:
		case <-delay:
			delay = nil
			nudge()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitSynced waits until the index follows etcd.
func (r *Registry) waitSynced(ctx context.Context) error {
	if err := r.await(ctx, func() bool { return r.following }, nil); err != nil {
		return fmt.Errorf("wait for the index: %w: %w", ErrUnavailable, err)
	}
	return nil
}

// waitRevision waits until the index has seen everything up to rev.
func (r *Registry) waitRevision(ctx context.Context, rev int64) error {
	err := r.await(ctx, func() bool { return r.idx.rev >= rev }, func() {
		r.mu.Lock()
		watching := r.watching
		r.mu.Unlock()
		if watching != nil {
			// If this fails the watch is broken, and Run sees to it.
			_ = r.client.RequestProgress(watching)
		}
	})
	if err != nil {
		return fmt.Errorf("wait for revision %d: %w: %w", rev, ErrUnavailable, err)
	}
	return nil
}

// revision asks etcd for its revision of now.
func (r *Registry) revision(ctx context.Context) (int64, error) {
	done := r.timed("read")
	resp, err := r.client.Get(ctx, keyNetwork, clientv3.WithKeysOnly())
	done(err)
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// Agent returns the record of the agent at ip; the error is an *api.Error when
// there is none.
func (r *Registry) Agent(ctx context.Context, ip netip.Addr) (*lease.Agent, error) {
	if err := r.loaded(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.idx.agents[ip]; a != nil {
		return a.Agent, nil
	}
	return nil, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("there is no agent %s", ip)}
}

// loaded waits for the first load. Reads go on from what is known when etcd is
// away later.
func (r *Registry) loaded(ctx context.Context) error {
	if err := r.await(ctx, func() bool { return r.idx.rev != 0 }, nil); err != nil {
		return fmt.Errorf("wait for the index: %w: %w", ErrUnavailable, err)
	}
	return nil
}
