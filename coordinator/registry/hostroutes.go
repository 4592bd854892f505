package registry

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/dcos/dcos-overlay/internal/api"
)

// HostRoute is a route of an agent that is alive which overlaps a range of the
// network.
type HostRoute struct {
	Agent netip.Addr
	api.RouteClash
}

// HostRoutes are all such routes, by agent, as of now.
func (r *Registry) HostRoutes(ctx context.Context) ([]HostRoute, error) {
	rev, err := r.revision(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the revision of etcd: %w", err)
	}
	if err := r.waitRevision(ctx, rev); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []HostRoute
	for ip, a := range r.idx.alive {
		for _, c := range clashes(r.idx.net, a.report().HostRoutes) {
			out = append(out, HostRoute{ip, c})
		}
	}
	slices.SortFunc(out, func(a, b HostRoute) int {
		return cmp.Or(a.Agent.Compare(b.Agent), a.Route.Compare(b.Route))
	})
	return out, nil
}
