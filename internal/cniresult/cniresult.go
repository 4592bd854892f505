// Package cniresult is what our plugins answer an ADD with, in the version
// that the configuration asks for.
package cniresult

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/ipam"
)

// New is the result for addrs, with those of routes that lie in a family that
// the container has a gateway of.
func New(conf *cniconf.Conf, addrs []ipam.Address, routes []netip.Prefix) *current.Result {
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, DNS: conf.DNS}
	gateways := map[bool]net.IP{}
	for _, a := range addrs {
		gw := net.IP(a.Gateway.AsSlice())
		gateways[a.Prefix.Addr().Is6()] = gw
		result.IPs = append(result.IPs, &current.IPConfig{Address: ipNet(a.Prefix), Gateway: gw})
	}
	for _, dst := range routes {
		if gw := gateways[dst.Addr().Is6()]; gw != nil {
			result.Routes = append(result.Routes, &types.Route{Dst: ipNet(dst), GW: gw})
		}
	}
	return result
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
