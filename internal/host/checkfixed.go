package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// checkFixed compares the fixed addresses of each overlay that has such: what
// the lease lists, what containers here have reserved, and what the kernel
// routes to them.
func (h *Host) checkFixed(ctx context.Context, k *kernel.Kernel, held *agentstate.Held) (out []Finding) {
	for _, o := range held.Agent.Overlays {
		info, ok := held.Network.Overlay(o.Name)
		if !ok || len(info.Statics()) == 0 {
			continue
		}
		here, err := h.FixedHere(ctx, info)
		if err != nil {
			out = append(out, Finding{Part: PartFixed, Err: err})
			continue
		}
		f := Finding{Part: PartFixed}
		want, problems := compareFixed(o, here)
		f.Want = fmt.Sprintf("%d of overlay %s on this host", len(want), o.Name)
		routes, err := checkFixedRoutes(ctx, k, info, want)
		if errors.Is(err, kernel.ErrNoDevice) || errors.Is(err, fs.ErrNotExist) {
			err = nil // that the bridge is missing is said of the bridge
		}
		f.Problems, f.Err = few(append(problems, routes...)), err
		out = append(out, f)
	}
	return out
}

// compareFixed is which fixed addresses of o are both listed in the lease and
// reserved here, and what is wrong with the others.
func compareFixed(o lease.Overlay, here []ipam.Entry) (want []netip.Addr, problems []string) {
	for _, e := range here {
		if o.Fixed(e.Addr, e.Owner.ContainerID, e.Owner.IfName) {
			want = append(want, e.Addr)
			continue
		}
		problems = append(problems, fmt.Sprintf("container %s has %s of overlay %s, which this agent does not hold", e.Owner.ContainerID, e.Addr, o.Name))
	}
	for _, a := range o.Addresses {
		if !slices.Contains(want, a.IP) {
			problems = append(problems, fmt.Sprintf("this agent holds %s of overlay %s for container %s, which does not have it", a.IP, o.Name, a.Container))
		}
	}
	return want, problems
}

func checkFixedRoutes(ctx context.Context, k *kernel.Kernel, info network.Overlay, want []netip.Addr) (problems []string, err error) {
	bridge := info.MesosBridge()
	lacking, stray, err := k.CheckFixed(ctx, bridge, want)
	if err != nil {
		return nil, err
	}
	for _, a := range lacking {
		problems = append(problems, fmt.Sprintf("%s: it lacks the route to %s", bridge, a))
	}
	for _, a := range stray {
		problems = append(problems, fmt.Sprintf("%s: it has a stray route to %s", bridge, a))
	}
	redirects, err := k.CheckNoRedirects(ctx, bridge)
	return append(problems, redirects...), err
}
