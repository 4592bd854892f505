// Package cniresult is what our plugins answer an ADD with, in the version
// that the configuration asks for, and what they are told of an earlier one.
package cniresult

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// New is the result for addrs, with those of routes that lie in a family that
// the container has a gateway of.
func New(dns types.DNS, addrs []ipam.Address, routes []netip.Prefix) *current.Result {
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, DNS: dns}
	gateways := map[bool]net.IP{}
	for _, a := range addrs {
		ip := &current.IPConfig{Address: ipNet(a.Prefix)}
		if a.Gateway.IsValid() {
			ip.Gateway = a.Gateway.AsSlice()
			if v6 := a.Prefix.Addr().Is6(); gateways[v6] == nil {
				gateways[v6] = ip.Gateway
			}
		}
		result.IPs = append(result.IPs, ip)
	}
	for _, dst := range routes {
		if gw := gateways[dst.Addr().Is6()]; gw != nil {
			result.Routes = append(result.Routes, &types.Route{Dst: ipNet(dst), GW: gw})
		}
	}
	return result
}

// Prev is the prevResult in a configuration; nil without error where there is
// none. Its errors are *types.Error.
func Prev(stdin []byte) (*current.Result, error) {
	// Most have none, and are not worth the types of a whole configuration.
	if v := plainjson.Parse(stdin); !v.Get("prevResult").There() && v.Plain() {
		return nil, nil
	}
	var has struct {
		PrevResult json.RawMessage `json:"prevResult"`
	}
	err := json.Unmarshal(stdin, &has)
	if err == nil && has.PrevResult == nil {
		return nil, nil
	}
	var conf types.PluginConf
	if err == nil {
		err = json.Unmarshal(stdin, &conf)
	}
	if err == nil && conf.RawPrevResult == nil {
		return nil, nil
	}
	if err == nil {
		err = version.ParsePrevResult(&conf)
	}
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read prevResult: "+err.Error(), "")
	}
	result, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read prevResult: "+err.Error(), "")
	}
	return result, nil
}

// After is result as that of a chain, in which earlier plugins came to prev.
func After(prev, result *current.Result) *current.Result {
	out := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: slices.Concat(prev.Interfaces, result.Interfaces),
		IPs:        slices.Clone(prev.IPs),
		Routes:     slices.Concat(prev.Routes, result.Routes),
		DNS:        prev.DNS,
	}
	for _, ip := range result.IPs {
		ip = ip.Copy()
		if ip.Interface != nil {
			ip.Interface = current.Int(*ip.Interface + len(prev.Interfaces))
		}
		out.IPs = append(out.IPs, ip)
	}
	if !result.DNS.IsEmpty() {
		out.DNS = result.DNS
	}
	return out
}

// Part is what a result says of one interface of a container.
type Part struct {
	// Interface is nil in results of versions that tell of no interfaces.
	Interface *current.Interface
	Addrs     []ipam.Address
	// Routes are destinations, by a gateway of the interface or by none.
	Routes []netip.Prefix
}

// Of picks the part of the container's interface ifName out of a result.
func Of(result *current.Result, ifName string) (part Part, err error) {
	index := -1
	for i, link := range result.Interfaces {
		if link.Sandbox != "" && link.Name == ifName {
			part.Interface, index = link, i
		}
	}
	gateways := map[netip.Addr]bool{{}: true}
	for _, ip := range result.IPs {
		if ip.Interface != nil && *ip.Interface != index {
			continue
		}
		addr, ok := prefix(ip.Address)
		if !ok {
			return Part{}, fmt.Errorf("the result has an address %v, which is none", ip.Address)
		}
		gw, _ := netip.AddrFromSlice(ip.Gateway)
		gateways[gw.Unmap()] = true
		part.Addrs = append(part.Addrs, ipam.Address{Prefix: addr, Gateway: gw.Unmap()})
	}
	for _, r := range result.Routes {
		dst, ok := prefix(r.Dst)
		if !ok {
			return Part{}, fmt.Errorf("the result has a route to %v, which is no subnet", r.Dst)
		}
		gw, _ := netip.AddrFromSlice(r.GW)
		if gateways[gw.Unmap()] {
			part.Routes = append(part.Routes, dst)
		}
	}
	return part, nil
}

func prefix(n net.IPNet) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	addr = addr.Unmap()
	ones, bits := n.Mask.Size()
	if bits == 128 && addr.Is4() {
		ones -= 96
	}
	p := netip.PrefixFrom(addr, ones)
	return p, ok && p.IsValid()
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
