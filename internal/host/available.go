package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Available fails with the reason why there is no address of the overlay to be
// had for a container on this host. more says that it would be reserved with
// Reserve, which claims one more subnet where all addresses are in use.
// Available changes nothing.
func (h *Host) Available(ctx context.Context, overlay string, more bool) error {
	held, err := h.Dir.Held()
	if _, ok := h.Pool(held, overlay); err == nil && ok && !held.Drains(overlay) {
		pool, err := h.Offered(held, overlay)
		if err != nil {
			return err
		}
		return h.free(ctx, held, pool, more)
	}
	// A lease that can't be read is claimed anew.
	if err != nil {
		held = nil
	}
	return h.claimable(ctx, held, overlay)
}

func (h *Host) free(ctx context.Context, held *agentstate.Held, pool ipam.Pool, more bool) error {
	v4, v6 := pool, pool
	v4.V6, v6.V4 = nil, nil
	for _, family := range []ipam.Pool{v4, v6} {
		err := family.Available(ctx)
		var full *ipam.ExhaustedError
		if more && errors.As(err, &full) {
			why := h.growable(ctx, held, pool.Overlay, len(family.V6) > 0)
			if why == nil {
				continue
			}
			noMore(full, why)
		}
		if err != nil {
			return err
		}
	}
	if len(pool.V6) == 0 {
		return nil
	}
	return h.can6(pool.V6[0], held.Agent.IP, held.Network)
}

// can6 fails where this host, whose underlay address is ip, can't have an
// overlay of n whose addresses are of p.
func (h *Host) can6(p netip.Prefix, ip netip.Addr, n network.Network) error {
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	if err = h.ipv6(k, ip, n); err == nil {
		err = firewall.New().Lacks(true)
	}
	if err != nil {
		return needs6(p, err)
	}
	return nil
}

// claimable asks the coordinator whether a claim can succeed.
func (h *Host) claimable(ctx context.Context, held *agentstate.Held, overlay string) error {
	if !h.Conf.Network.AllocateSubnet {
		return fmt.Errorf("this agent takes no subnets: network_config.allocate_subnet is false in %s", h.Conf.Path)
	}
	ip, err := h.address(held)
	if err != nil {
		return err
	}
	client, err := h.client(ip)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	o, err := client.Overlay(ctx, overlay)
	if held.Drains(overlay) && (err != nil || !o.IsEnabled()) {
		return drains(overlay)
	}
	if err != nil {
		return fmt.Errorf("this agent has no lease of it, and a claim would fail: %w", err)
	}
	if !o.IsEnabled() {
		return errors.New("this agent has no lease of it, and a claim would fail: the overlay is disabled")
	}
	if err := h.Dir.Writable(); err != nil {
		return err
	}
	if o.Subnet6.IsValid() && h.Conf.Network.EnableIPv6 {
		return h.can6(o.Subnet6, ip, network.Network{})
	}
	return nil
}

// unleased counts the overlay's subnets that no agent holds, and all of them,
// by what this agent knew last of the others. It asks nobody: when an agent is
// full each of its containers fails, and a coordinator should not be asked as
// often.
func (h *Host) unleased(held *agentstate.Held, overlay string) (free, all int64, ok bool) {
	o, known := held.Network.Overlay(overlay)
	peers, err := h.Dir.Peers()
	if !known || err != nil || len(peers) == 0 {
		return 0, 0, false
	}
	for _, f := range []struct {
		space netip.Prefix
		bits  int
		count func(*lease.Overlay) int
	}{
		{o.Subnet, o.Prefix, func(l *lease.Overlay) int { return len(l.Subnets) }},
		{o.Subnet6, o.Prefix6, func(l *lease.Overlay) int { return len(l.Subnets6) }},
	} {
		if !f.space.IsValid() {
			continue
		}
		// Spaces of IPv6 may have more subnets than a number can tell.
		n := int64(1) << min(f.bits-f.space.Bits(), 62)
		leased := int64(f.count(held.Agent.Overlay(overlay)))
		for _, p := range peers {
			if l := p.Overlay(overlay); l != nil && p.IP != held.Agent.IP {
				leased += int64(f.count(l))
			}
		}
		if left := max(n-leased, 0); !ok || left < free {
			free, all, ok = left, n, true
		}
	}
	return free, all, ok
}
