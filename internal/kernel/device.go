package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// genModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: the device
	// gets no link-local address by itself.
	genModeNone = 1
	// prefixMetric6 is IP6_RT_PRIO_ADDRCONF of linux/ipv6_route.h: what the
	// kernel gives the route of an IPv6 address's prefix.
	prefixMetric6 = 256
	// protocolKernel is RTPROT_KERNEL: routes that the kernel made itself.
	protocolKernel = 2
)

// settings is what VTEP and bridge have in common.
type settings struct {
	mac   network.MAC
	mtu   int
	addrs []netip.Prefix
}

// ensureSettings brings an existing device to s and up. It answers with what
// it had to change.
func (k *Kernel) ensureSettings(link netlink.Link, s settings) (repairs []string, err error) {
	attrs := link.Attrs()
	name := attrs.Name
	// The MTU comes first, because the kernel takes IPv6 off a device whose
	// MTU is below 1280.
	if s.mtu > 0 && attrs.MTU != s.mtu {
		if err := k.h.LinkSetMTU(link, s.mtu); err != nil {
			return repairs, fmt.Errorf("set MTU of %s to %d: %w", name, s.mtu, err)
		}
		repairs = append(repairs, fmt.Sprintf("%s: MTU %d set to %d", name, attrs.MTU, s.mtu))
	}
	if err := k.ensureNoAutoconf(link, s); err != nil {
		return repairs, err
	}
	if have := attrs.HardwareAddr.String(); s.mac != (network.MAC{}) && have != s.mac.String() {
		if err := k.h.LinkSetHardwareAddr(link, s.mac.Hardware()); err != nil {
			return repairs, fmt.Errorf("set MAC of %s to %s: %w", name, s.mac, err)
		}
		repairs = append(repairs, fmt.Sprintf("%s: MAC %s set to %s", name, have, s.mac))
	}
	// Up comes before the addresses, because taking a device down removes its
	// IPv6 addresses and the routes of the others.
	if attrs.Flags&net.FlagUp == 0 {
		if err := k.h.LinkSetUp(link); err != nil {
			return repairs, fmt.Errorf("set %s up: %w", name, err)
		}
		repairs = append(repairs, name+": set up")
	}
	more, err := k.ensureAddrs(link, s.addrs)
	return append(repairs, more...), err
}

// ensureNoAutoconf keeps IPv6 autoconfiguration off a device: no addresses of
// its own making, and no belief in router advertisements, by which a container
// could make itself the host's router.
func (k *Kernel) ensureNoAutoconf(link netlink.Link, s settings) error {
	name := link.Attrs().Name
	var mode string
	err := k.inside(func() (err error) {
		// It is set again where it can't be read, as before Linux 4.11.
		mode, _ = readSysctl("net/ipv6/conf/" + name + "/addr_gen_mode")
		return refuseRouterAdverts(name)
	})
	// Setting what is set already would be news to whoever watches the device,
	// such as a companion that then looks whether all is right.
	if err != nil || mode == fmt.Sprint(genModeNone) {
		return err
	}
	err = k.h.LinkSetIP6AddrGenMode(link, genModeNone)
	wants6 := slices.ContainsFunc(s.addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
	// A kernel without IPv6 has no such setting.
	if err != nil && (wants6 || !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP)) {
		return fmt.Errorf("turn off IPv6 address generation on %s: %w", name, err)
	}
	return nil
}

// ensureAddrs gives link exactly the addresses of want.
func (k *Kernel) ensureAddrs(link netlink.Link, want []netip.Prefix) (repairs []string, err error) {
	name := link.Attrs().Name
	have, err := k.addrs(link)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// Removals come first: the kernel refuses a second length of an IPv6
	// address, and takes an IPv4 address for secondary to one in its subnet
	// and removes it together with that.
	removed := false
	for _, a := range have {
		p := prefixOf(a.IPNet)
		if slices.Contains(want, p) {
			continue
		}
		if err := k.h.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return repairs, fmt.Errorf("remove address %s from %s: %w", p, name, err)
		}
		removed = true
		repairs = append(repairs, fmt.Sprintf("%s: removed address %s", name, p))
	}
	if removed {
		if have, err = k.addrs(link); err != nil {
			return repairs, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, p := range want {
		if slices.ContainsFunc(have, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == p }) {
			continue
		}
		if err := k.addAddr(link, p); err != nil {
			return repairs, err
		}
		repairs = append(repairs, fmt.Sprintf("%s: added address %s", name, p))
	}
	for _, p := range want {
		added, err := k.ensureOnLink(link, p)
		if err != nil {
			return repairs, err
		}
		if added {
			repairs = append(repairs, fmt.Sprintf("%s: added route %s", name, p.Masked()))
		}
	}
	return repairs, nil
}

func (k *Kernel) addAddr(link netlink.Link, p netip.Prefix) error {
	name := link.Attrs().Name
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		// The coordinator has seen to it that nobody else has the address;
		// detecting duplicates would only delay its use.
		addr.Flags = unix.IFA_F_NODAD
	}
	if p.Addr().IsLinkLocalUnicast() {
		addr.Scope = unix.RT_SCOPE_LINK
	}
	err := k.h.AddrAdd(link, addr)
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case p.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP)):
		return fmt.Errorf("add address %s to %s: %w: %w: %s, or set network_config.enable_ipv6 to false", p, name, err, ErrIPv6Off, turnIPv6On)
	}
	return fmt.Errorf("add address %s to %s: %w", p, name, err)
}

// ensureOnLink sees to the route of p's subnet on link. The kernel makes it
// with the address; programs that flush routes remove it while the address
// stays. It tells whether the route was missing.
func (k *Kernel) ensureOnLink(link netlink.Link, p netip.Prefix) (added bool, err error) {
	if !hasLink(p) || k.onLink(link, p) {
		return false, nil
	}
	index := link.Attrs().Index
	// The same in every part as the kernel's own, so that it goes away with
	// the address.
	route := &netlink.Route{LinkIndex: index, Dst: ipNet(p.Masked()), Protocol: protocolKernel}
	add := k.h.RouteAdd
	if p.Addr().Is4() {
		route.Scope, route.Src = netlink.SCOPE_LINK, p.Addr().AsSlice()
	} else {
		// Every device has a route to fe80::/64; RouteAdd would refuse a second.
		route.Priority, add = prefixMetric6, k.h.RouteAppend
	}
	err = add(route)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("add route %s dev %s: %w", p.Masked(), link.Attrs().Name, err)
	}
	return true, nil
}

// hasLink tells whether the range of p has addresses beside p's own.
func hasLink(p netip.Prefix) bool { return p.Addr().BitLen()-p.Bits() >= 2 }

// onLink tells whether the route of p's subnet is on link. It asks which route
// is used for a neighbouring address: a dump would cost a look at every route
// of the host.
func (k *Kernel) onLink(link netlink.Link, p netip.Prefix) bool {
	index := link.Attrs().Index
	probe := p.Addr().Next()
	if !p.Contains(probe) || !p.Contains(probe.Next()) {
		probe = p.Addr().Prev()
	}
	routes, err := k.h.RouteGetWithOptions(probe.AsSlice(), &netlink.RouteGetOptions{OifIndex: index, FIBMatch: true})
	return err == nil && slices.ContainsFunc(routes, func(r netlink.Route) bool {
		return r.LinkIndex == index && r.Gw == nil && r.Dst != nil && prefixOf(r.Dst) == p.Masked()
	})
}

func prefixOf(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// familyOf is the address family of ip.
func familyOf(ip netip.Addr) uint8 {
	if ip.Is4() {
		return nl.FAMILY_V4
	}
	return nl.FAMILY_V6
}
