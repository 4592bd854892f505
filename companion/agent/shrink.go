package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/internal/agentstate"
)

// DefaultExtraHold is how long a further subnet must have been empty before it
// goes back: containers come and go, and each change is told to every agent.
const DefaultExtraHold = 10 * time.Minute

// extra is a subnet beside an overlay's first one.
type extra struct {
	overlay string
	subnet  netip.Prefix
}

// shrink gives back the subnets beside the first ones that no container has had
// an address of for ExtraHold. It answers what is held then. It needs the
// host's lock.
//
// The lease on disk lacks a subnet before its emptiness counts: an ADD that
// reserves from it later sees that the lease has changed, and takes another
// address. A crash on the way leaves a subnet that the next claim tells of.
func (a *Agent) shrink(ctx context.Context, view *peers.View, held *agentstate.Held) (*agentstate.Held, error) {
	if !a.knowsAll(view, held) {
		return held, nil
	}
	unused := map[extra]time.Time{}
	defer func() { a.unused = unused }()
	for _, o := range held.Agent.Overlays {
		for _, subnet := range slices.Backward(o.ExtraSubnets()) {
			e := extra{o.Name, subnet}
			n, err := a.reserved(ctx, e)
			if err != nil {
				return held, err
			}
			if n > 0 {
				continue
			}
			since, ok := a.unused[e]
			if !ok {
				since = time.Now()
			}
			unused[e] = since
			if time.Since(since) < a.ExtraHold {
				continue
			}
			if held, err = a.withdraw(ctx, view, held, e); err != nil {
				return held, fmt.Errorf("give back subnet %s of overlay %s, which is empty: %w", subnet, o.Name, err)
			}
			delete(unused, e)
		}
	}
	return held, nil
}

// reserved counts the addresses of e that are reserved.
func (a *Agent) reserved(ctx context.Context, e extra) (n int64, err error) {
	for _, pool := range a.Host.Pools(e.overlay) {
		used, err := pool.Used(ctx, e.subnet)
		if err != nil {
			return 0, err
		}
		n += used
	}
	return n, nil
}

// withdraw gives e back, unless somebody has taken an address of it meanwhile.
func (a *Agent) withdraw(ctx context.Context, view *peers.View, held *agentstate.Held, e extra) (*agentstate.Held, error) {
	less := *held
	less.Agent = *held.Agent.Clone()
	o := less.Agent.Overlay(e.overlay)
	o.Subnets, o.Subnets6 = without(o.Subnets, e.subnet), without(o.Subnets6, e.subnet)
	if err := a.Host.Dir.Save(&less); err != nil {
		return held, err
	}
	if n, err := a.reserved(ctx, e); n > 0 || err != nil {
		return held, a.Host.Dir.Save(held)
	}
	client, err := a.clients.to(a.Host, held.Agent.IP)
	if err != nil {
		return &less, err
	}
	within, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	// Until the coordinator's word is newer than the release, the stream may
	// still tell of the subnet.
	a.claim.done = false
	if err := client.ReleaseSubnet(within, held.Agent.IP, e.overlay, e.subnet); err != nil {
		return &less, err
	}
	a.Log.Info("a subnet was empty, and is given back", "overlay", e.overlay, "subnet", e.subnet)
	fresh, err := a.renew(ctx, held.Agent.IP, wanted(&less, view), renewTimeout)
	if err != nil {
		return &less, err
	}
	a.claim.done = true
	return fresh, nil
}

func without(list []netip.Prefix, p netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(list, func(x netip.Prefix) bool { return x == p })
}
