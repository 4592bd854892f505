package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
)

// ports puts the links of containers that lost their bridge, for somebody has
// deleted it, on the one that is there now. Inside the containers nothing has
// changed meanwhile, and the bridge has its old MAC and addresses.
func (h *Host) ports(ctx context.Context, k *kernel.Kernel, held *agentstate.Held, done *Outcome) {
	lost, err := h.lost(ctx, k, held)
	if err != nil {
		done.warn("links of containers that have lost their bridge can't be found", err)
	}
	for overlay, links := range lost {
		if done.Failed[overlay] != nil {
			continue // there is no bridge to put them on
		}
		bridge := network.MesosBridgeName(overlay)
		put, err := k.PutOnBridge(ctx, bridge, links)
		if len(put) > 0 {
			done.Repairs = append(done.Repairs, Repair{KindDevice, portsText(bridge, put)})
		}
		if err != nil {
			done.fail(overlay, err)
		}
	}
}

// lost are the links of containers that should be on the bridge of their
// overlay, and are on none.
func (h *Host) lost(ctx context.Context, k *kernel.Kernel, held *agentstate.Held) (map[string][]string, error) {
	var overlays []string
	for _, o := range held.Agent.Overlays {
		// Before its first container a host has no such links.
		if held.Agent.Config.MesosBridge && h.Dir.Ready(o.Name) {
			overlays = append(overlays, o.Name)
		}
	}
	if len(overlays) == 0 {
		return nil, nil
	}
	loose, err := k.LooseVeths(ctx)
	if err != nil || len(loose) == 0 {
		return nil, err
	}
	out := map[string][]string{}
	var errs []error
	for _, overlay := range overlays {
		links, err := h.linksOf(ctx, held, overlay)
		errs = append(errs, err)
		links = slices.DeleteFunc(links, func(name string) bool { return !slices.Contains(loose, name) })
		if len(links) > 0 {
			out[overlay] = links
		}
	}
	return out, errors.Join(errs...)
}

func portsText(bridge string, links []string) string {
	return fmt.Sprintf("%s: links of containers that had lost it are on it again: %s", bridge, strings.Join(few(links), ", "))
}

// linksOf are the host's ends of the links of containers on the overlay, by
// their records, whose addresses are all granted to this agent still: one with
// an address that may be another agent's by now must not get back.
func (h *Host) linksOf(ctx context.Context, held *agentstate.Held, overlay string) (out []string, err error) {
	pool, _ := h.Pool(held, overlay)
	granted := held.Agent.Overlay(overlay)
	barred := map[string]bool{}
	for _, p := range h.Pools(overlay) {
		entries, err := p.Entries(ctx)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if link := e.Home.HostIf; link != "" && e.Addr.IsValid() {
				out = append(out, link)
				barred[link] = barred[link] || !pool.Contains(e.Addr) && !granted.Fixed(e.Addr, e.Owner.ContainerID, e.Owner.IfName)
			}
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(link string) bool { return barred[link] }), nil
}
