package agentconf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"
)

// resolveTimeout bounds the look-up of one coordinator's name.
const resolveTimeout = 2 * time.Second

// AgentIP is the underlay address that this agent is known by: "ip" as it is
// given, the first global address of "interface" (IPv4 before IPv6), the first
// local address in "ip_cidr", or else the address that packets to the first
// coordinator that resolves would have as their source. For a coordinator on
// this very machine that would be loopback; then it is the source toward the
// world. No packet is sent, but names of coordinators are looked up.
func (c *Config) AgentIP() (netip.Addr, error) {
	switch {
	case c.IP.IsValid():
		return c.IP, nil
	case c.Interface != "":
		return interfaceIP(c.Interface)
	case c.IPCIDR.IsValid():
		return c.cidrIP()
	default:
		return c.sourceIP()
	}
}

func interfaceIP(name string) (netip.Addr, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the agent's address on interface %s: %w", name, err)
	}
	addrs, err := iface.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list the addresses of interface %s: %w", name, err)
	}
	var found netip.Addr
	for _, a := range addrs {
		ip, ok := hostAddr(a)
		if !ok || !ip.IsGlobalUnicast() {
			continue
		}
		if ip.Is4() {
			return ip, nil
		}
		if !found.IsValid() {
			found = ip
		}
	}
	if !found.IsValid() {
		return netip.Addr{}, fmt.Errorf("find the agent's address: interface %s has no global address; give it one, or set \"ip\" or \"ip_cidr\"", name)
	}
	return found, nil
}

func (c *Config) cidrIP() (netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list this machine's addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := hostAddr(a); ok && c.IPCIDR.Contains(ip) && !ip.IsLoopback() {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("find the agent's address: this machine has none in %s; correct \"ip_cidr\"", c.IPCIDR)
}

// hostAddr is the address of a, one that package net lists.
func hostAddr(a net.Addr) (netip.Addr, bool) {
	n, ok := a.(*net.IPNet)
	if !ok {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	return ip.Unmap(), ok
}

// world4 and world6 are in ranges for documentation (RFC 5737, RFC 3849): no
// host has them, and the default route leads to them. 9 is the discard port.
const world4, world6 = "192.0.2.1:9", "[2001:db8::1]:9"

func (c *Config) sourceIP() (netip.Addr, error) {
	ip, err := c.sourceToMaster()
	if err == nil && ip.IsLoopback() {
		if ip, err = source(world4); err != nil {
			ip, err = source(world6)
		}
	}
	if err == nil && !ip.IsGlobalUnicast() {
		err = fmt.Errorf("%s is not reachable from other hosts", ip)
	}
	if err != nil {
		path := c.Path
		if path == "" {
			path = DefaultPath
		}
		return netip.Addr{}, fmt.Errorf("find the agent's address: %w; set \"ip\", \"interface\" or \"ip_cidr\" in %s", err, path)
	}
	return ip, nil
}

// sourceToMaster is the source address toward the first coordinator that
// resolves and has a route.
func (c *Config) sourceToMaster() (netip.Addr, error) {
	firstErr := errors.New("no coordinator is configured")
	for i, master := range c.Master {
		u, err := url.Parse(master)
		if err == nil {
			var ip netip.Addr
			if ip, err = source(u.Host); err == nil {
				return ip, nil
			}
		}
		if i == 0 {
			firstErr = err
		}
	}
	return netip.Addr{}, firstErr
}

// source is the address that packets to hostport would come from.
func source(hostport string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	var d net.Dialer
	// Connecting a UDP socket chooses a route and sends nothing.
	conn, err := d.DialContext(ctx, "udp", hostport)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the route to %s: %w", hostport, err)
	}
	defer conn.Close()
	addr, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, fmt.Errorf("find the route to %s: the socket's address is a %T", hostport, conn.LocalAddr())
	}
	return addr.AddrPort().Addr().Unmap().WithZone(""), nil
}
