package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	// pulseInterval is how often etcd is asked how far it is.
	pulseInterval = time.Second
	// pulseTimeout is how long etcd may take for that, and indexTimeout the
	// index from then on.
	pulseTimeout = 2 * time.Second
	indexTimeout = time.Second
)

// freshness is how well the index is known to be in step with etcd. A watch
// does not tell: one on a connection that hangs is as silent as one on an etcd
// where nothing happens.
type freshness struct {
	// at is the latest time of which the index is known to have everything.
	at time.Time
	// ok is false when the last question was not answered.
	ok bool
	// etcdRev is etcd's revision by its last answer.
	etcdRev int64
}

// feelPulse keeps r.fresh until ctx ends.
func (r *Registry) feelPulse(ctx context.Context) {
	ticker := time.NewTicker(pulseInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked := r.opts.Now()
		call, cancel := context.WithTimeout(ctx, pulseTimeout)
		rev, err := r.revision(call)
		cancel()
		answered := err == nil
		r.mu.Lock()
		before := r.idx.rev
		r.mu.Unlock()
		if answered {
			call, cancel := context.WithTimeout(ctx, indexTimeout)
			err = r.waitRevision(call, rev)
			cancel()
		}
		r.mu.Lock()
		if answered && err != nil && r.idx.rev == before && r.unwatch != nil {
			// Etcd answers, and the watch says nothing: it is at a member
			// that hangs, which gRPC notices in 13 s only.
			r.unwatch()
		}
		if answered {
			r.fresh.etcdRev = rev
		}
		if r.fresh.ok = err == nil; r.fresh.ok {
			r.fresh.at = asked
		}
		r.mu.Unlock()
	}
}

// Age tells whether the index is known to be in step with etcd and, if not,
// for how many seconds it has not been: one at least.
func (r *Registry) Age() (seconds int64, stale bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.age()
}

func (r *Registry) age() (seconds int64, stale bool) {
	if r.following && r.fresh.ok {
		return 0, false
	}
	return max(1, int64(math.Ceil(r.opts.Now().Sub(r.fresh.at).Seconds()))), true
}

// Trouble tells why etcd takes no changes, if that is known.
func (r *Registry) Trouble() error {
	if r.opts.Trouble == nil {
		return nil
	}
	return r.opts.Trouble()
}

// Ready tells whether the index follows etcd, and etcd answers and takes
// changes.
func (r *Registry) Ready(ctx context.Context) error {
	if err := r.ready(ctx); err != nil {
		// What is known of the cause says more than that there is one.
		return cmp.Or(r.Trouble(), err)
	}
	return r.Trouble()
}

func (r *Registry) ready(ctx context.Context) error {
	r.mu.Lock()
	following, configured := r.following, r.idx.baseRev != 0
	age, stale := r.age()
	r.mu.Unlock()
	switch {
	case !following:
		return errors.New("the index is not in step with etcd")
	case stale:
		// Who probes does not wait for as long as a call takes to fail.
		return fmt.Errorf("%w: the index is not known to be in step with it for %d s", ErrUnavailable, age)
	case !configured:
		return errors.New("no network is configured")
	}
	if _, err := r.revision(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
