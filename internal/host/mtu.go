package host

import (
	"fmt"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/kernel"
)

// mtus are the containers' MTU and the VTEP's, in bytes.
func (h *Host) mtus(held *agentstate.Held, underlay kernel.Underlay) (container, vtep int) {
	container = dataplane.ContainerMTU(h.Conf.Network.OverlayMTU, underlay.MTU, held.Agent.IP.Is6())
	if held.Network.VTEPMTU != 0 {
		return container, held.Network.VTEPMTU
	}
	return container, container
}

// tooLong says which of the configured MTUs are more than fits the underlay:
// long packets are then cut in pieces, or lost.
func (h *Host) tooLong(held *agentstate.Held, underlay kernel.Underlay) (out []string) {
	most := dataplane.ContainerMTU(0, underlay.MTU, held.Agent.IP.Is6())
	for _, m := range []struct {
		field string
		mtu   int
	}{{"overlay_mtu", h.Conf.Network.OverlayMTU}, {"vtep_mtu", held.Network.VTEPMTU}} {
		if m.mtu > most {
			out = append(out, fmt.Sprintf("%s is %d, and %s, whose MTU is %d, takes %d inside VXLAN: longer packets are cut in pieces or lost; lower the one or raise the other",
				m.field, m.mtu, underlay.Name, underlay.MTU, most))
		}
	}
	return out
}
