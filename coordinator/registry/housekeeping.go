package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// minChores and maxChores bound the time between two rounds of
	// housekeeping, which is a quarter of the alive TTL.
	minChores = 250 * time.Millisecond
	maxChores = 15 * time.Second
	// choresTimeout bounds one round.
	choresTimeout = time.Minute
)

// keepHouse does, until ctx ends, what nobody calls for: it removes overlays
// that are drained, and agents that were silent for too long. Every
// coordinator does it; that two do it at once does no harm.
func (r *Registry) keepHouse(ctx context.Context) {
	ticker := time.NewTicker(r.choresEvery())
	defer ticker.Stop()
	for {
		chores := []func(context.Context) error{r.finishDeletes}
		select {
		case <-ctx.Done():
			return
		case <-r.chores:
		case <-ticker.C:
			chores = append(chores, r.keepSilence, r.keepMesos, r.dropLeftovers)
		}
		round, cancel := context.WithTimeout(ctx, choresTimeout)
		var err error
		for _, chore := range chores {
			err = errors.Join(err, chore(round))
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			r.opts.Log.Warn("housekeeping is not done, and tried again", "error", err)
		}
	}
}

// choresEvery is the time between two rounds.
func (r *Registry) choresEvery() time.Duration {
	return min(max(r.opts.AliveTTL/4, minChores), maxChores)
}

// wakeHousekeeping makes it look at once whether an overlay is drained.
func (r *Registry) wakeHousekeeping() {
	select {
	case r.chores <- struct{}{}:
	default: // one is asked for already
	}
}

// finishDeletes removes the overlays that are being deleted and that nobody
// holds of.
func (r *Registry) finishDeletes(ctx context.Context) error {
	r.mu.Lock()
	var drained []string
	for name, o := range r.idx.overlays {
		if r.following && o.Deleting && r.idx.tally.holders[name] == 0 {
			drained = append(drained, name)
		}
	}
	r.mu.Unlock()
	for _, name := range drained {
		gone, err := r.removeDrained(ctx, name)
		if err != nil {
			return err
		}
		if gone {
			r.opts.Log.Info("an overlay is drained and gone", "overlay", name)
		}
	}
	return nil
}

// leftover is a subnet that rests, of an overlay that is gone or is cut
// otherwise by now.
type leftover struct {
	key string
	rev int64
}

// dropLeftovers forgets subnets of overlays that are gone, once their
// quarantine is over: until then they keep the space from new overlays.
func (r *Registry) dropLeftovers(ctx context.Context) error {
	for {
		found := r.leftovers()
		if len(found) == 0 {
			return nil
		}
		p := &plan{read: keyNetwork}
		for _, l := range found {
			p.unchanged(l.key, l.rev)
			p.remove(l.key)
		}
		ok, rev, err := r.commit(ctx, p)
		if err != nil {
			return fmt.Errorf("forget subnets of deleted overlays: %w: %w", ErrUnavailable, err)
		}
		if err := r.waitRevision(ctx, rev); err != nil || !ok {
			// Another coordinator is at it.
			return err
		}
	}
}

// leftovers finds as many as go into one transaction.
func (r *Registry) leftovers() []leftover {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.following {
		return nil
	}
	rested := r.opts.Now().Add(-r.opts.Quarantine)
	var out []leftover
	for id, pool := range r.idx.pools {
		if id.overlay == "" {
			continue
		}
		for u, since := range pool.Released() {
			if len(out) == batchOps {
				return out
			}
			if !pool.Fits(u) && !since.After(rested) {
				key := subnetUnit(id.overlay, u).restKey
				out = append(out, leftover{key, r.idx.released[key]})
			}
		}
	}
	return out
}
