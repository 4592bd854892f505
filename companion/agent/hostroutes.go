package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/companion/routes"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/network"
)

// routesEvery is the least time between two looks at the host's own routes: no
// repair depends on them, and ten thousand peers make the list long.
const routesEvery = 10 * time.Second

// hostRoutes are the host's own routes, for the coordinator, which makes no
// overlay over them. Those that clash with one that there is are warnings.
func (a *Agent) hostRoutes(view *peers.View, held *agentstate.Held, done *host.Outcome) []netip.Prefix {
	net := &held.Network
	if view.Synced {
		net = &view.Network
	}
	if time.Since(a.routesAt) >= routesEvery {
		a.readRoutes(view, held)
	}
	done.Warnings = append(done.Warnings, routes.Clashes(a.routes, net)...)
	if a.manyRoutes {
		done.Warnings = append(done.Warnings, fmt.Sprintf(
			"this host has more routes of its own than the %d that are reported: an overlay may be made over the others", api.MaxHostRoutes))
	}
	var out []netip.Prefix
	for _, r := range a.routes {
		out = append(out, r.To)
	}
	return out
}

// readRoutes reads them. What can't be read stays as it was known.
func (a *Agent) readRoutes(view *peers.View, held *agentstate.Held) {
	names, err := a.Host.Dir.Marked()
	for _, n := range []*network.Network{&view.Network, &held.Network} {
		for _, o := range n.Overlays {
			names = append(names, o.Name)
		}
	}
	devices := []string{network.VTEPName}
	for _, n := range names {
		devices = append(devices, network.MesosBridgeName(n), network.DockerBridgeName(n))
	}
	var own []routes.Route
	var more bool
	if err == nil {
		own, more, err = routes.Own(func(device string) bool { return slices.Contains(devices, device) })
	}
	if a.said.news("routes", errorText(err)) && err != nil {
		a.Log.Warn("the host's own routes are not reported", "error", err)
	}
	if err == nil {
		a.routes, a.manyRoutes = own, more
	}
	a.routesAt = time.Now()
}
