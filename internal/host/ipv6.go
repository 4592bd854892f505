package host

import (
	"fmt"
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Offered is Pool less what no new container gets: IPv6 addresses that were
// leased before enable_ipv6 was set to false.
func (h *Host) Offered(held *agentstate.Held, overlay string) (ipam.Pool, error) {
	pool, _ := h.Pool(held, overlay)
	if h.Conf.Network.EnableIPv6 || len(pool.V6) == 0 {
		return pool, nil
	}
	if pool.V6 = nil; len(pool.V4) == 0 {
		return pool, fmt.Errorf("the overlay has IPv6 only, and network_config.enable_ipv6 is false in %s: use another overlay, or correct it", h.Conf.Path)
	}
	return pool, nil
}

// feasible is what of a lease, and of what is known of others, there can be on
// this host: all of it, or no IPv6 where there can be none or the lease has
// none. lacking says why overlays that need IPv6 do not work; those of IPv4
// alone do.
func (h *Host) feasible(k *kernel.Kernel, held *agentstate.Held, known Knowledge) (_ *agentstate.Held, _ Knowledge, lacking map[string]error) {
	off := h.ipv6(k, held.Agent.IP, held.Network)
	if off == nil && held.Agent.VTEP.IP6.IsValid() {
		return held, known, nil
	}
	lacking = h.lacking(held, off)
	// What follows from the answer alone: the rest changes while it is saved.
	plain := agentstate.Held{
		Agent: *held.Agent.WithoutIPv6(), Network: held.Network.WithoutIPv6(),
		Deleting: held.Deleting, Revision: held.Revision,
	}
	agents := make([]lease.Agent, len(known.Agents))
	for i := range known.Agents {
		agents[i] = *known.Agents[i].WithoutIPv6()
	}
	known.Agents = agents
	return &plain, known, lacking
}

// mtu6 is the least MTU of a device with IPv6, in bytes (RFC 8200): the kernel
// takes IPv6 off one that has less.
const mtu6 = 1280

// ipv6 says why there can be no IPv6 on the VTEP and the bridges of the agent
// with the underlay address ip.
func (h *Host) ipv6(k *kernel.Kernel, ip netip.Addr, n network.Network) error {
	if err := k.IPv6(network.VTEPName); err != nil {
		return err
	}
	underlay, err := k.Underlay(ip)
	if err != nil {
		return nil // that there is none is said by who needs it
	}
	container, vtep := h.mtus(&agentstate.Held{Agent: lease.Agent{IP: ip}, Network: n}, underlay)
	if mtu := min(container, vtep); mtu < mtu6 {
		return fmt.Errorf("the overlays' MTU is %d here, and IPv6 needs %d: raise the MTU of %s, which is %d, or overlay_mtu or vtep_mtu if they are set", mtu, mtu6, underlay.Name, underlay.MTU)
	}
	return nil
}

// lacking are the overlays that do not work where there is no IPv6, for which
// why is nil if there is. With enable_ipv6 false new containers get IPv4 alone.
func (h *Host) lacking(held *agentstate.Held, why error) map[string]error {
	out := map[string]error{}
	for _, o := range held.Agent.Overlays {
		if why != nil && len(o.Subnets6) > 0 && (h.Conf.Network.EnableIPv6 || len(o.Subnets) == 0) {
			out[o.Name] = needs6(o.Subnets6[0], why)
		}
	}
	return out
}

func needs6(p netip.Prefix, why error) error {
	return fmt.Errorf("it has IPv6 addresses (%s): %w, or set network_config.enable_ipv6 to false", p, why)
}

// rulesOf are the rules that a feasible lease needs. Those of IPv6 need
// ip6tables; without, lacking says which overlays do not work.
func (h *Host) rulesOf(held *agentstate.Held) (rules firewall.Config, lacking map[string]error) {
	rules = firewall.ConfigOf(held.Network)
	if len(rules.Sources6) == 0 {
		return rules, nil
	}
	if err := firewall.New().Lacks(true); err != nil {
		return firewall.ConfigOf(held.Network.WithoutIPv6()), h.lacking(held, err)
	}
	return rules, nil
}
