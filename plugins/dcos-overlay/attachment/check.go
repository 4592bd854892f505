package attachment

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/dcos/dcos-overlay/internal/network"
)

// Expected is what there must be of an attachment.
type Expected struct {
	Netns, IfName, HostIfName string
	// Bridge is the name of the one that the host's end is on.
	Bridge string
	// MAC is nil when any will do.
	MAC   *network.MAC
	Addrs []netip.Prefix
	// Routes are destinations that are routed by the interface, in whichever
	// table.
	Routes []netip.Prefix
}

// Check fails with all that differs from e.
func (l *Links) Check(e Expected) error {
	return errors.Join(l.checkHost(e), l.checkInside(e))
}

func (l *Links) checkHost(e Expected) error {
	bridge, err := l.Bridge(e.Bridge)
	if err != nil {
		return err
	}
	h, err := l.library()
	if err != nil {
		return err
	}
	defer h.Close()
	host, err := h.LinkByName(e.HostIfName)
	if err != nil {
		return fmt.Errorf("find veth %s: %w", e.HostIfName, err)
	}
	if host.Type() != "veth" {
		return fmt.Errorf("device %s is a %s, not a veth", e.HostIfName, host.Type())
	}
	if host.Attrs().MasterIndex != bridge.Index {
		return fmt.Errorf("veth %s is not on bridge %s", e.HostIfName, e.Bridge)
	}
	if host.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("veth %s is not up", e.HostIfName)
	}
	return nil
}

func (l *Links) checkInside(e Expected) error {
	ns, err := netns.GetFromPath(e.Netns)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", e.Netns, err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", e.Netns, err)
	}
	defer inside.Close()
	link, err := inside.LinkByName(e.IfName)
	if err != nil {
		return fmt.Errorf("find interface %s in the container: %w", e.IfName, err)
	}
	var errs []error
	if link.Attrs().Flags&net.FlagUp == 0 {
		errs = append(errs, fmt.Errorf("interface %s is not up", e.IfName))
	}
	if has := link.Attrs().HardwareAddr.String(); e.MAC != nil && has != e.MAC.String() {
		errs = append(errs, fmt.Errorf("interface %s has MAC %s, not %s", e.IfName, has, e.MAC))
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return inside.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("list the addresses of %s: %w", e.IfName, err))...)
	}
	var has []netip.Prefix
	for _, a := range addrs {
		has = append(has, prefix(a.IPNet))
	}
	for _, want := range e.Addrs {
		if !slices.Contains(has, want) {
			errs = append(errs, fmt.Errorf("interface %s has no address %s", e.IfName, want))
		}
	}
	return errors.Join(append(errs, checkRoutes(inside, link, e))...)
}

func checkRoutes(inside *netlink.Handle, link netlink.Link, e Expected) error {
	// Table 0 is all tables; a plugin for routing by source may have moved
	// them.
	filter := &netlink.Route{LinkIndex: link.Attrs().Index}
	routes, err := whole(func() ([]netlink.Route, error) {
		return inside.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("list the routes of %s: %w", e.IfName, err)
	}
	var missing []string
	for _, want := range e.Routes {
		found := slices.ContainsFunc(routes, func(r netlink.Route) bool {
			if r.Dst == nil {
				return want.Bits() == 0 && (r.Family == netlink.FAMILY_V6) == want.Addr().Is6()
			}
			return prefix(r.Dst) == want
		})
		if !found {
			missing = append(missing, want.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("there is no route to %s by interface %s", strings.Join(missing, ", "), e.IfName)
	}
	return nil
}

func prefix(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
}

// dumpTries is how often a list is read that changed meanwhile. With dozens of
// containers coming and going, one in some tens does.
const dumpTries = 20

// whole reads a list of the kernel's until nothing has changed it meanwhile:
// from one with gaps nothing follows.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpTries {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// On lists the host's ends of containers' links that are on a bridge; none
// when there is no such bridge.
func (l *Links) On(bridge string) ([]string, error) {
	h, err := l.library()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var notFound netlink.LinkNotFoundError
	b, err := h.LinkByName(bridge)
	if errors.As(err, &notFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	all, err := whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the devices on bridge %s: %w", bridge, err)
	}
	var out []string
	for _, link := range all {
		a := link.Attrs()
		if a.MasterIndex == b.Attrs().Index && link.Type() == "veth" && strings.HasPrefix(a.Name, hostPrefix) {
			out = append(out, a.Name)
		}
	}
	return out, nil
}
