package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flowsTimeout bounds each answer of the kernel's; with a hundred thousand
// flows it takes some tenths of a second.
const flowsTimeout = 5 * time.Second

// ForgetFlows has the kernel forget what it led to containers' addresses. It
// looks at the rules for a flow's first packet alone: a client that goes on
// sending, by UDP say, would reach whoever gets the address next. portmap does
// the like when it maps a port, but not when it takes it back. A kernel that
// can't tell of its flows is no error.
func ForgetFlows(addrs []netip.Addr) error {
	filters := map[netlink.InetFamily][]netlink.CustomConntrackFilter{}
	for _, a := range addrs {
		family := netlink.InetFamily(unix.AF_INET)
		if a.Is6() {
			family = unix.AF_INET6
		}
		// What comes back is from the container, whatever was asked for.
		f := &netlink.ConntrackFilter{}
		if err := f.AddIP(netlink.ConntrackReplySrcIP, a.AsSlice()); err != nil {
			return fmt.Errorf("forget the flows to %s: %w", a, err)
		}
		filters[family] = append(filters[family], f)
	}
	if len(filters) == 0 {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return unlessUnknown(fmt.Errorf("open a netlink socket for flows: %w", err))
	}
	defer h.Close()
	if err := h.SetSocketTimeout(flowsTimeout); err != nil {
		return fmt.Errorf("bound the netlink socket for flows: %w", err)
	}
	var errs []error
	for family, all := range filters {
		if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, all...); err != nil {
			errs = append(errs, unlessUnknown(fmt.Errorf("forget the flows to %v: %w", addrs, err)))
		}
	}
	return errors.Join(errs...)
}

// unlessUnknown is err, unless it is that the kernel has no such protocol, or
// nothing in it for flows (nfnetlink's EINVAL).
func unlessUnknown(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}
