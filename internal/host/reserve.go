package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Reserve takes addresses of the overlay for a container, out of the lease
// held. When all are in use it claims one more subnet for this agent, and goes
// on with that.
func (h *Host) Reserve(ctx context.Context, held *agentstate.Held, overlay string, owner ipam.Owner, home *ipam.Home, requested []netip.Addr) ([]ipam.Address, error) {
	for {
		pool, err := h.poolFor(held, overlay, home)
		if err != nil {
			return nil, err
		}
		addrs, err := pool.Reserve(ctx, owner, home, requested)
		var full *ipam.ExhaustedError
		if errors.As(err, &full) {
			more, why := h.grow(ctx, held, overlay, full.Side[0].Addr().Is6())
			if why == nil {
				held = more
				continue
			}
			noMore(full, why)
			return nil, err
		}
		if err != nil || h.Dir.Current(held) {
			return addrs, err
		}
		// The companion may have given back the subnet of one of them after
		// we had read the lease.
		now, err := h.Dir.Held()
		if err == nil {
			if pool, err := h.poolFor(now, overlay, home); err == nil && all(addrs, pool.Contains) {
				return addrs, nil
			}
		}
		if err := errors.Join(err, pool.Release(context.WithoutCancel(ctx), owner)); err != nil {
			return nil, err
		}
		held = now
	}
}

// noMore notes why this agent gets no further subnet. What it knew of the
// others' is older than a coordinator's word that nothing is left.
func noMore(full *ipam.ExhaustedError, why error) {
	full.NoMore = why
	var said *api.Error
	if errors.As(why, &said) && said.Code == api.CodeExhausted {
		full.Elsewhere = ""
	}
}

func all(addrs []ipam.Address, ok func(netip.Addr) bool) bool {
	return !slices.ContainsFunc(addrs, func(a ipam.Address) bool { return !ok(a.Prefix.Addr()) })
}

// grow claims one more subnet of the overlay in one address family, unless
// there is one that old lacks, and gives the bridge its address.
func (h *Host) grow(ctx context.Context, old *agentstate.Held, overlay string, v6 bool) (*agentstate.Held, error) {
	o, _ := old.Network.Overlay(overlay)
	if err := belowLimit(old, o, overlay, v6); err != nil {
		return nil, err
	}
	unlock, err := h.Dir.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	held, err := h.Dir.Held()
	if err != nil {
		return nil, err
	}
	if held != nil && held.Subnets(overlay, v6) > old.Subnets(overlay, v6) {
		return held, nil
	}
	want := api.SubnetCount{Subnets: old.Subnets(overlay, false), Subnets6: old.Subnets(overlay, true)}
	if v6 {
		want.Subnets6++
	} else {
		want.Subnets++
	}
	if held, err = h.claimMore(ctx, old.Agent.IP, overlay, want); err != nil {
		return nil, err
	}
	if held.Subnets(overlay, v6) <= old.Subnets(overlay, v6) {
		return nil, errors.New("the coordinator grants none: it may be of an older version")
	}
	h.Log.Info("one more subnet", "overlay", overlay, "subnets", held.Agent.Overlay(overlay).AllSubnets())
	h.alone(ctx, held, overlay)
	return held, h.openBridge(ctx, held, overlay)
}

// belowLimit fails when held has as many subnets of one address family as o
// lets an agent have.
func belowLimit(held *agentstate.Held, o network.Overlay, overlay string, v6 bool) error {
	if n, limit := held.Subnets(overlay, v6), o.SubnetLimit(); n >= limit {
		return fmt.Errorf("it holds %d, and max_subnets is %d", n, limit)
	}
	return nil
}

// growable fails with the reason why grow would.
func (h *Host) growable(ctx context.Context, held *agentstate.Held, overlay string, v6 bool) error {
	known, _ := held.Network.Overlay(overlay)
	if err := belowLimit(held, known, overlay, v6); err != nil {
		return err
	}
	client, err := h.client(held.Agent.IP)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	o, err := client.OverlayStatus(ctx, overlay)
	switch {
	case errors.Is(err, api.ErrUnreachable):
		return fmt.Errorf("no coordinator grants one now: %w", err)
	case err != nil:
		return err
	case !o.IsEnabled():
		return errors.New("the overlay is disabled")
	}
	units := o.Subnets
	if v6 {
		units = o.Subnets6
	}
	switch {
	case units == nil:
		return errors.New("the coordinator does not tell of any: it may be of an older version")
	case units.Free < 1:
		return &api.Error{Code: api.CodeExhausted, Message: fmt.Sprintf("none is free: agents hold %d, and %d rest", units.Leased, units.Resting)}
	}
	return belowLimit(held, o.Overlay, overlay, v6)
}

func (h *Host) claimMore(ctx context.Context, ip netip.Addr, overlay string, want api.SubnetCount) (*agentstate.Held, error) {
	client, err := h.client(ip)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	held, err := h.claim(ctx, client, ip, api.ClaimRequest{
		Overlays: []string{overlay}, AtLeast: map[string]api.SubnetCount{overlay: want},
	})
	if errors.Is(err, api.ErrUnreachable) {
		err = fmt.Errorf("no coordinator grants one now: %w", err)
	}
	return held, err
}

// openBridge gives the overlay's bridge, if there is one, the gateway addresses
// of the lease. Under another main plugin there is none.
func (h *Host) openBridge(ctx context.Context, held *agentstate.Held, overlay string) error {
	if _, err := net.InterfaceByName(network.MesosBridgeName(overlay)); err != nil {
		return nil
	}
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	underlay, err := k.Underlay(held.Agent.IP)
	if err != nil {
		return err
	}
	mtu, _ := h.mtus(held, underlay)
	_, err = k.EnsureBridge(ctx, dataplane.MesosBridgeOf(*held.Agent.Overlay(overlay), mtu))
	return err
}
