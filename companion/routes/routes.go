// Package routes is what a host routes by itself, apart from the overlays: no
// overlay may have the addresses that it reaches so.
package routes

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// maxRead bounds the routes that are looked at: a router of the internet
	// has a million.
	maxRead = 65536
	// dumpAttempts is how often a dump is tried that changes keep
	// interrupting.
	dumpAttempts = 5
)

// Route is one of the host's.
type Route struct {
	To netip.Prefix
	// Device is empty for a route over several.
	Device string
}

// Own reads the host's own routes from the kernel's main table, sorted: not
// those on devices that ours names, nor default routes, nor those to
// link-local, loopback and multicast addresses, nor those inside another. more
// tells that there are more than api.MaxHostRoutes, of which the widest are
// answered.
func Own(ours func(device string) bool) (own []Route, more bool, err error) {
	devices := map[int]string{}
	links, err := again(netlink.LinkList)
	if err != nil {
		return nil, false, fmt.Errorf("list the devices: %w", err)
	}
	for _, l := range links {
		devices[l.Attrs().Index] = l.Attrs().Name
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := again(func() ([]Route, error) { return list(family, devices, ours) })
		if err != nil {
			return nil, false, fmt.Errorf("list the routes: %w", err)
		}
		own = append(own, found...)
	}
	more = len(own) >= maxRead
	own = outer(own)
	if len(own) > api.MaxHostRoutes {
		slices.SortStableFunc(own, func(a, b Route) int { return a.To.Bits() - b.To.Bits() })
		own, more = own[:api.MaxHostRoutes], true
		slices.SortFunc(own, byPlace)
	}
	return own, more, nil
}

func list(family int, devices map[int]string, ours func(string) bool) (own []Route, err error) {
	main := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	err = netlink.RouteListFilteredIter(family, main, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		device := devices[r.LinkIndex]
		if to, ok := target(r); ok && !ours(device) {
			own = append(own, Route{To: to, Device: device})
		}
		return len(own) < maxRead
	})
	return own, err
}

// target is where a route leads to, if that is of interest.
func target(r netlink.Route) (netip.Prefix, bool) {
	if r.Type != unix.RTN_UNICAST || r.Protocol == kernel.RouteProtocol || r.Dst == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	if !ok || bits == 0 || addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsLoopback() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr.Unmap(), bits), true
}

// outer sorts routes, and leaves out those inside another.
func outer(routes []Route) []Route {
	slices.SortFunc(routes, byPlace)
	out := routes[:0]
	for _, r := range routes {
		if len(out) > 0 && out[len(out)-1].To.Overlaps(r.To) {
			continue
		}
		out = append(out, r)
	}
	return out
}

// byPlace sorts a range before those inside it.
func byPlace(a, b Route) int { return a.To.Compare(b.To) }

// again calls a dump until no change of the table interrupts it.
func again[T any](dump func() (T, error)) (out T, err error) {
	for range dumpAttempts {
		if out, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// Clashes says in words which of own overlap a range of n.
func Clashes(own []Route, n *network.Network) (out []string) {
	for _, r := range own {
		for _, c := range n.Clashes(r.To) {
			out = append(out, fmt.Sprintf("the route %s%s of this host overlaps %s: what it leads to and the overlay can't both be reached", r.To, by(r.Device), c))
		}
	}
	return out
}

func by(device string) string {
	if device == "" {
		return ""
	}
	return " dev " + device
}
