package network

import (
	"fmt"
	"net/netip"
)

// Clashes names the address spaces of n that p overlaps, as in "overlay dcos
// (9.0.0.0/8)".
func (n Network) Clashes(p netip.Prefix) (out []string) {
	add := func(what string, space netip.Prefix) {
		if space.Overlaps(p) {
			out = append(out, fmt.Sprintf("%s (%s)", what, space))
		}
	}
	add("vtep_subnet", n.VTEPSubnet)
	add("vtep_subnet6", n.VTEPSubnet6)
	for _, o := range n.Overlays {
		add("overlay "+o.Name, o.Subnet)
		add("overlay "+o.Name, o.Subnet6)
	}
	return out
}
