package registry

import (
	"context"
	"net/netip"
	"time"
)

// MarkSilent and Reclaim are steps of the housekeeping, at a time that a test
// chooses.
func (r *Registry) MarkSilent(ctx context.Context, ip netip.Addr, since time.Time) error {
	return r.markSilent(ctx, silence{ip: ip, since: since})
}

func (r *Registry) Reclaim(ctx context.Context, ip netip.Addr, since time.Time) error {
	return r.reclaim(ctx, silence{ip: ip, since: since, reclaim: true})
}

// ReleaseGone is a step of the housekeeping about an agent that is gone from
// Mesos.
func (r *Registry) ReleaseGone(ctx context.Context, ip netip.Addr) error {
	r.mu.Lock()
	d := duty{ip: ip, seen: r.idx.mesos[ip], release: true}
	r.mu.Unlock()
	return r.releaseGone(ctx, d)
}

// Wait makes groups count as under way for d, so that a test can have calls
// wait for one.
func (r *Registry) Wait(d time.Duration) { r.group.patience = d }

// Waiting is how many calls wait for the next group.
func (r *Registry) Waiting() int {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	return len(r.group.waiting)
}
