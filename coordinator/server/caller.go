package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/dcos/dcos-overlay/internal/api"
)

// agentIP reads the {ip} of r's path.
func agentIP(r *http.Request) (netip.Addr, error) {
	text := r.PathValue("ip")
	ip, err := netip.ParseAddr(text)
	ip = ip.Unmap()
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
		return netip.Addr{}, fail(api.CodeInvalid, "%q is not the address of an agent, such as 172.17.0.2", text)
	}
	return ip, nil
}

// ownIP reads the {ip} of r's path and checks that the caller may act for it:
// it must call from that address or, over loopback, be on the machine that has
// it.
func (s *Server) ownIP(r *http.Request) (netip.Addr, error) {
	ip, err := agentIP(r)
	if err != nil {
		return netip.Addr{}, err
	}
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("the caller's address %q: %w", r.RemoteAddr, err)
	}
	caller := remote.Addr().Unmap().WithZone("")
	if caller == ip {
		return ip, nil
	}
	if caller.IsLoopback() {
		own, err := s.local()
		if err != nil {
			return netip.Addr{}, err
		}
		if slices.Contains(own, ip) {
			return ip, nil
		}
	}
	return netip.Addr{}, fail(api.CodeForbidden,
		"%s may not act for agent %s: an agent acts only for the address that it calls from (see ip, interface and ip_cidr in agent.json)", caller, ip)
}

// interfaceAddrs are the addresses of this machine.
func interfaceAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out, nil
}
