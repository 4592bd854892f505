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
