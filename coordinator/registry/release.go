package registry

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/api"
)

// Release takes back all that the agent at ip holds and forgets it, in one
// transaction. An agent that is not there is no error.
func (r *Registry) Release(ctx context.Context, ip netip.Addr) error {
	return r.release(ctx, ip, true)
}

// release is Release; without force an agent that is alive is left as it is,
// with an *api.Error.
func (r *Registry) release(ctx context.Context, ip netip.Addr, force bool) error {
	_, _, err := r.changeShared(ctx, fmt.Sprintf("release of agent %s", ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(ip)}
		p.unchanged(keyAgent(ip), x.agentRev(ip))
		a := x.agents[ip]
		if a == nil {
			return p, nil
		}
		if !force {
			if _, alive := x.alive[ip]; alive {
				return nil, fail(api.CodeConflict, "agent %s has reported meanwhile, and is not deleted", ip)
			}
			p.unchanged(keyAlive(ip), 0)
		}
		p.free(units(a.Agent), r.opts.Now())
		p.forget(a.Agent)
		return p, nil
	})
	if err == nil {
		r.wakeHousekeeping()
	}
	return err
}

// ReleaseOverlay takes back what the agent at ip holds of one overlay. Nothing
// held is no error.
func (r *Registry) ReleaseOverlay(ctx context.Context, ip netip.Addr, overlay string) error {
	_, _, err := r.changeShared(ctx, fmt.Sprintf("release of overlay %s by agent %s", overlay, ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(ip)}
		p.strip(x, ip, overlay, r.opts.Now())
		return p, nil
	})
	if err == nil {
		r.wakeHousekeeping()
	}
	return err
}

// ReleaseSubnet takes back one subnet that the agent at ip holds of an overlay
// beside its first ones. A subnet that it does not hold is no error; a first
// one is an *api.Error, for its bridge has its address from there.
func (r *Registry) ReleaseSubnet(ctx context.Context, ip netip.Addr, overlay string, subnet netip.Prefix) error {
	_, _, err := r.changeShared(ctx, fmt.Sprintf("release of %s by agent %s", subnet, ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(ip)}
		p.unchanged(keyAgent(ip), x.agentRev(ip))
		entry := x.agents[ip]
		if entry == nil {
			return p, nil
		}
		a := entry.Clone()
		o := a.Overlay(overlay)
		if o == nil {
			return p, nil
		}
		for _, list := range []*[]netip.Prefix{&o.Subnets, &o.Subnets6} {
			switch i := slices.Index(*list, subnet); {
			case i == 0:
				return nil, fail(api.CodeConflict, "%s is the first subnet of overlay %s that agent %s has: release the overlay", subnet, overlay, ip)
			case i > 0:
				*list = slices.Delete(*list, i, i+1)
				p.free([]unit{subnetUnit(overlay, subnet)}, r.opts.Now())
				p.put(keyAgent(ip), a)
				return p, nil
			}
		}
		return p, nil
	})
	return err
}

// Delete releases each of ips on an operator's behalf, in order. Those that
// are not there are passed over. Without force none is deleted if one of them
// is alive. On any other error some are deleted; asking again is safe.
func (r *Registry) Delete(ctx context.Context, ips []netip.Addr, force bool) error {
	if !force {
		if err := r.refuseAlive(ctx, ips); err != nil {
			return err
		}
	}
	for _, ip := range ips {
		if err := r.release(ctx, ip, force); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) refuseAlive(ctx context.Context, ips []netip.Addr) error {
	_, _, err := r.change(ctx, "delete agents", func(x *index) (*plan, error) {
		var alive []string
		for _, ip := range ips {
			if _, ok := x.alive[ip]; ok {
				alive = append(alive, ip.String())
			}
		}
		if len(alive) > 0 {
			return nil, fail(api.CodeConflict, "nothing is deleted, for these agents are alive: %s: stop their companions and wait %s, or delete with \"force\": true",
				strings.Join(alive, ", "), r.opts.AliveTTL)
		}
		return &plan{read: keyNetwork}, nil
	})
	return err
}
