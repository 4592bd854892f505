package registry

import (
	"context"
	"fmt"
	"net/netip"
)

// Release takes back all that the agent at ip holds and forgets it, in one
// transaction. An agent that is not there is no error.
func (r *Registry) Release(ctx context.Context, ip netip.Addr) error {
	_, _, err := r.change(ctx, fmt.Sprintf("release of agent %s", ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(ip)}
		p.unchanged(keyAgent(ip), x.agentRev(ip))
		a := x.agents[ip]
		if a == nil {
			return p, nil
		}
		p.free(a.Agent, r.opts.Now())
		p.remove(keyAgent(ip))
		p.remove(keyID(a.ID))
		p.remove(keyAlive(ip))
		return p, nil
	})
	return err
}

// Delete releases each of ips on an operator's behalf, in order. Those that
// are not there are passed over. On an error some are deleted; asking again is
// safe.
func (r *Registry) Delete(ctx context.Context, ips []netip.Addr) error {
	for _, ip := range ips {
		if err := r.Release(ctx, ip); err != nil {
			return err
		}
	}
	return nil
}
