package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The underlay's addresses. They exist in the lab's namespaces only.
var (
	Underlay4 = netip.MustParsePrefix("172.17.0.0/16")
	Underlay6 = netip.MustParsePrefix("fd00:17::/64")
	// Router4 and Router6 are the outside host's, where hosts send what is
	// not of the underlay.
	Router4 = netip.MustParseAddr("172.17.0.1")
	Router6 = netip.MustParseAddr("fd00:17::1")
	// World4 and World6 are addresses of the outside host that stand for the
	// internet, out of the ranges for documentation (RFC 5737, RFC 3849).
	World4 = netip.MustParseAddr("203.0.113.1")
	World6 = netip.MustParseAddr("2001:db8::1")
)

const (
	// hostLink is a host's interface on the underlay, bridgeLink the bridge
	// that joins them all, portPrefix and the host's name its port.
	hostLink   = "eth0"
	bridgeLink = "underlay"
	portPrefix = "p-"
	// maxName leaves room for portPrefix in an interface's 15 characters.
	maxName = unix.IFNAMSIZ - 1 - len(portPrefix)
)

// addr6 is the IPv6 address that goes with an underlay address.
func addr6(v4 netip.Addr) netip.Addr {
	a, b := Underlay6.Addr().As16(), v4.As4()
	copy(a[14:], b[2:])
	return netip.AddrFrom16(a)
}

// links opens netlink inside the host.
func (h *Host) links() (*netlink.Handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pid == 0 {
		return nil, fmt.Errorf("host %s is off", h.Name)
	}
	handle, err := netlink.NewHandleAt(h.netns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink of host %s: %w", h.Name, err)
	}
	return handle, nil
}

// becomeOutside makes the underlay's bridge in the outside host, with all its
// addresses.
func (h *Host) becomeOutside() error {
	links, err := h.links()
	if err != nil {
		return err
	}
	defer links.Close()
	// Without an address of its own a bridge takes the least of its ports', so
	// that a host that comes or goes cuts off the others from the outside until
	// their neighbour entries are old enough to be asked about.
	attrs := netlink.LinkAttrs{Name: bridgeLink, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("making the underlay's bridge: %w", err)
	}
	if err := raise(links, "lo", netip.PrefixFrom(World4, 32), netip.PrefixFrom(World6, 128)); err != nil {
		return err
	}
	return raise(links, bridgeLink,
		netip.PrefixFrom(Router4, Underlay4.Bits()), netip.PrefixFrom(Router6, Underlay6.Bits()))
}

// joinUnderlay plugs a host that has just started into the underlay.
func (h *Host) joinUnderlay() error {
	outside, err := h.lab.Outside.links()
	if err != nil {
		return err
	}
	defer outside.Close()
	// The kernel takes a dead host's link away in its own time.
	if old, err := outside.LinkByName(portPrefix + h.Name); err == nil {
		if err := outside.LinkDel(old); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("removing the old port of host %s: %w", h.Name, err)
		}
	}
	bridge, err := outside.LinkByName(bridgeLink)
	if err != nil {
		return fmt.Errorf("looking for the underlay's bridge: %w", err)
	}
	port := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: portPrefix + h.Name, MasterIndex: bridge.Attrs().Index},
		PeerName:      hostLink,
		PeerNamespace: netlink.NsFd(int(h.netns)),
	}
	if err := outside.LinkAdd(port); err != nil {
		return fmt.Errorf("making the underlay link of host %s: %w", h.Name, err)
	}
	if err := raise(outside, port.Name); err != nil {
		return err
	}
	inside, err := h.links()
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := raise(inside, "lo"); err != nil {
		return err
	}
	if err := raise(inside, hostLink,
		netip.PrefixFrom(h.Addr, Underlay4.Bits()), netip.PrefixFrom(h.Addr6, Underlay6.Bits())); err != nil {
		return err
	}
	link, err := inside.LinkByName(hostLink)
	if err != nil {
		return err
	}
	for _, router := range []netip.Addr{Router4, Router6} {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: router.AsSlice()}
		if err := inside.RouteAdd(route); err != nil {
			return fmt.Errorf("adding the default route of host %s via %s: %w", h.Name, router, err)
		}
	}
	return nil
}

// raise gives a link addresses and sets it up.
func raise(links *netlink.Handle, name string, addrs ...netip.Prefix) error {
	link, err := links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("looking for the link %s: %w", name, err)
	}
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{
			IP:   a.Addr().AsSlice(),
			Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen()),
		}}
		if a.Addr().Is6() {
			// Nobody else is here to have it; its use needn't wait.
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := links.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("adding %s to %s: %w", a, name, err)
		}
	}
	if err := links.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	return nil
}

// Unplug pulls the host's underlay cable: the host sees the carrier go.
func (h *Host) Unplug() error {
	return h.port(func(links *netlink.Handle, port, _ netlink.Link) error {
		return links.LinkSetDown(port)
	})
}

// Isolate cuts the host off the underlay in silence: its link stays up, but
// nothing gets through.
func (h *Host) Isolate() error {
	return h.port(func(links *netlink.Handle, port, _ netlink.Link) error {
		return links.LinkSetNoMaster(port)
	})
}

// Plug undoes Unplug and Isolate.
func (h *Host) Plug() error {
	return h.port(func(links *netlink.Handle, port, bridge netlink.Link) error {
		if port.Attrs().MasterIndex != bridge.Attrs().Index {
			if err := links.LinkSetMaster(port, bridge); err != nil {
				return err
			}
		}
		return links.LinkSetUp(port)
	})
}

// port calls change with the host's port of the underlay's bridge.
func (h *Host) port(change func(links *netlink.Handle, port, bridge netlink.Link) error) error {
	links, err := h.lab.Outside.links()
	if err != nil {
		return err
	}
	defer links.Close()
	bridge, err := links.LinkByName(bridgeLink)
	if err != nil {
		return fmt.Errorf("looking for the underlay's bridge: %w", err)
	}
	port, err := links.LinkByName(portPrefix + h.Name)
	if err != nil {
		return fmt.Errorf("looking for the underlay port of host %s: %w", h.Name, err)
	}
	if err := change(links, port, bridge); err != nil {
		return fmt.Errorf("changing the underlay port of host %s: %w", h.Name, err)
	}
	return nil
}
