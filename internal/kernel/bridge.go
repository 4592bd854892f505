package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/network"
)

// EnsureBridge makes the bridge, or brings the one of that name to b; two
// callers at once are both right. Addresses that b lacks are removed, since
// the range of one may be another agent's by now: call it with the whole
// lease. A device of that name and another kind is an error. It answers with
// what it did.
func (k *Kernel) EnsureBridge(ctx context.Context, b dataplane.Bridge) (repairs []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	link, err := k.link(b.Name)
	if errors.Is(err, ErrNoDevice) {
		if link, err = k.createBridge(b); err == nil {
			repairs = append(repairs, b.Name+": created")
		}
	}
	if err != nil {
		return repairs, err
	}
	if link.Type() != "bridge" {
		return repairs, fmt.Errorf("make bridge %s: a device of kind %s has that name: ip link delete %s", b.Name, link.Type(), b.Name)
	}
	more, err := k.ensureSettings(link, bridgeSettings(b))
	return append(repairs, more...), err
}

func bridgeSettings(b dataplane.Bridge) settings {
	s := settings{mac: b.MAC, mtu: b.MTU, addrs: b.Addrs}
	if slices.ContainsFunc(s.addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		// Without a link-local address the kernel cannot ask for containers'
		// MACs on behalf of a packet that it forwards. Ours is there at once;
		// one that the kernel makes is unusable for seconds.
		s.addrs = append(slices.Clone(s.addrs), linkLocal(b.MAC))
	}
	return s
}

func (k *Kernel) createBridge(b dataplane.Bridge) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = b.Name
	if b.MAC != (network.MAC{}) {
		// A bridge without a MAC of its own takes that of a port, which
		// changes as containers come and go.
		attrs.HardwareAddr = b.MAC.Hardware()
	}
	// There is no querier in an overlay, without which snooping loses
	// multicast, IPv6 neighbour discovery included. Spanning tree and VLAN
	// filtering are off in a new bridge.
	snooping := false
	err := k.h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
	switch {
	case err == nil && b.MTU > 0:
		// Only an MTU that is set later than this is kept when the last port
		// goes; one that it is made with becomes 1500 then.
		if err := k.h.LinkSetMTU(&netlink.Bridge{LinkAttrs: attrs}, b.MTU); err != nil {
			return nil, fmt.Errorf("set MTU of %s to %d: %w", b.Name, b.MTU, err)
		}
	case err == nil, errors.Is(err, unix.EEXIST):
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("make bridge %s: %w: kernel lacks bridges: modprobe bridge", b.Name, err)
	default:
		return nil, fmt.Errorf("make bridge %s: %w", b.Name, err)
	}
	return k.link(b.Name)
}

// ErrInUse is in the chain of an error about a bridge that has ports.
var ErrInUse = errors.New("in use")

// RemoveBridge deletes the bridge called name; that it is absent is success.
// One with ports stays, and so does a device of another kind: the error has
// ErrInUse in its chain, or says which kind.
func (k *Kernel) RemoveBridge(name string) error {
	defer k.mu.Unlock()
	if err := k.begin(context.Background()); err != nil {
		return err
	}
	link, err := k.link(name)
	if errors.Is(err, ErrNoDevice) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("delete bridge %s: it is of kind %s", name, link.Type())
	}
	links, err := k.h.LinkList()
	if err != nil {
		return fmt.Errorf("list the ports of bridge %s: %w", name, err)
	}
	ports := 0
	for _, l := range links {
		if l.Attrs().MasterIndex == link.Attrs().Index {
			ports++
		}
	}
	if ports > 0 {
		return fmt.Errorf("delete bridge %s: it is %w by %d containers", name, ErrInUse, ports)
	}
	return k.deleteLink(link)
}

// linkLocal is the link-local address that follows from a MAC (RFC 4291,
// appendix A).
func linkLocal(m network.MAC) netip.Prefix {
	ip := [16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}
	return netip.PrefixFrom(netip.AddrFrom16(ip), 64)
}
