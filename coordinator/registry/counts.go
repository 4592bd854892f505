package registry

import (
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/coordinator/allocator"
)

// Counts are figures for metrics.
type Counts struct {
	Agents, Alive, Silent, Watchers int
	// Gone are the agents that Mesos had and has no longer.
	Gone int
	// Conflicts counts the transactions that lost a race, since the start.
	Conflicts int64
	// LostWatches counts how often the index had to be begun anew.
	LostWatches int64
	// Revision is that of the index, EtcdRevision etcd's as last heard, and
	// Lag for how many seconds the index has not been known to be in step.
	Revision, EtcdRevision, Lag int64
}

// Counts returns the figures of now. It costs the same however many agents
// there are.
func (r *Registry) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := Counts{
		Agents: len(r.idx.agents), Silent: len(r.idx.tally.still), Gone: r.idx.tally.gone,
		Watchers: r.watchers, Conflicts: r.conflicts, LostWatches: r.lostWatches,
		Revision: r.idx.rev, EtcdRevision: max(r.fresh.etcdRev, r.idx.rev),
	}
	c.Alive = c.Agents - c.Silent
	c.Lag, _ = r.age()
	return c
}

// PoolCounts are the figures of one address space. Overlay is empty for that
// of the VTEPs.
type PoolCounts struct {
	Overlay string
	IPv6    bool
	allocator.Usage
}

// Pools returns the figures of all address spaces that are configured. What it
// costs depends on their number alone.
func (r *Registry) Pools() []PoolCounts {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []PoolCounts
	for id, pool := range r.idx.pools {
		if pool.Shaped() {
			out = append(out, PoolCounts{id.overlay, id.v6, pool.Usage(r.opts.Now(), r.opts.Quarantine)})
		}
	}
	slices.SortFunc(out, func(a, b PoolCounts) int { return strings.Compare(a.Overlay, b.Overlay) })
	return out
}
