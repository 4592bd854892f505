package agent

import (
	"fmt"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/host"
)

// tooLong says which of the configured MTUs are more than fits the underlay:
// long packets are then cut in pieces, or lost.
func (a *Agent) tooLong(held *agentstate.Held, done *host.Outcome) (out []string) {
	if done.MTU == 0 {
		return nil // the underlay is not known
	}
	most := dataplane.ContainerMTU(0, done.Underlay.MTU, held.Agent.IP.Is6())
	for _, m := range []struct {
		field string
		mtu   int
	}{{"overlay_mtu", a.Host.Conf.Network.OverlayMTU}, {"vtep_mtu", held.Network.VTEPMTU}} {
		if m.mtu > most {
			out = append(out, fmt.Sprintf("%s is %d, and %s, whose MTU is %d, takes %d inside VXLAN: longer packets are cut in pieces or lost; lower the one or raise the other",
				m.field, m.mtu, done.Underlay.Name, done.Underlay.MTU, most))
		}
	}
	return out
}
