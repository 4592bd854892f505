// Package attachment is one container's link to a bridge: a veth pair with its
// peer in the container's network namespace, addresses and routes.
package attachment

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/network"
)

// hostPrefix marks the host's ends of our veth pairs.
const hostPrefix = "dov"

// Attachment is what is to be made.
type Attachment struct {
	// Netns is the path of the container's network namespace.
	Netns string
	// IfName is the interface's name in the container.
	IfName string
	// HostIfName is the other end's; see HostIfName.
	HostIfName string
	Bridge     Bridge
	// MTU is the pair's, in bytes.
	MTU   int
	MAC   network.MAC
	Addrs []ipam.Address
	// Routes are destinations behind the gateway of their family.
	Routes []netip.Prefix
	// Spaces are routed to the gateway when a route to everywhere can't be,
	// because another interface of the container has it. Where that one is on
	// an overlay too, it leads to all of them but Own.
	Spaces []netip.Prefix
	// Own are the ranges of the overlay itself.
	Own []netip.Prefix
}

// ErrExists says that there is such an interface already.
var ErrExists = errors.New("it is there already")

// Bridge is a bridge that was found.
type Bridge struct {
	Name       string
	Index, MTU int
	MAC        network.MAC
}

// Links are the host's devices, through one netlink socket in the network
// namespace of the thread that opened it.
type Links struct {
	handle *netlink.Handle
}

// Open opens the socket.
func Open() (*Links, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Links{handle: h}, nil
}

// Close closes the socket.
func (l *Links) Close() { l.handle.Close() }

// Exist tells whether there is a device of that name.
func (l *Links) Exist(name string) bool {
	_, err := l.handle.LinkByName(name)
	return err == nil
}

// Bridge finds the bridge of that name.
func (l *Links) Bridge(name string) (Bridge, error) {
	link, err := l.handle.LinkByName(name)
	if err != nil {
		return Bridge{}, fmt.Errorf("find bridge %s: %w", name, err)
	}
	attrs := link.Attrs()
	if link.Type() != "bridge" || len(attrs.HardwareAddr) != len(network.MAC{}) {
		return Bridge{}, fmt.Errorf("device %s is a %s, not a bridge: remove or rename it", name, link.Type())
	}
	return Bridge{Name: name, Index: attrs.Index, MTU: attrs.MTU, MAC: network.MAC(attrs.HardwareAddr)}, nil
}

// HostIfName is the name of the host's end: a pure function of the container
// and its interface, so that DEL finds it without the namespace.
func HostIfName(containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "\x00" + ifName))
	// 15 bytes is what a device name may have (IFNAMSIZ).
	return hostPrefix + hex.EncodeToString(sum[:])[:15-len(hostPrefix)]
}

// Create makes the attachment; it leaves nothing behind when it fails. It
// returns the routes that the container got.
func (l *Links) Create(a Attachment) (routes []netip.Prefix, err error) {
	host := l.handle
	ns, err := netns.GetFromPath(a.Netns)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", a.Netns, err)
	}
	defer ns.Close()
	inside, err := enter(ns)
	if err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w", a.Netns, err)
	}
	defer inside.Close()

	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.HostIfName
	attrs.MTU = a.MTU
	attrs.MasterIndex = a.Bridge.Index
	attrs.Flags = net.FlagUp
	veth := &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         a.IfName,
		PeerNamespace:    netlink.NsFd(int(ns)),
		PeerHardwareAddr: a.MAC.Hardware(),
	}
	if err := host.LinkAdd(veth); err != nil {
		if errors.Is(err, unix.EEXIST) {
			if _, lookErr := inside.LinkByName(a.IfName); lookErr == nil {
				return nil, fmt.Errorf("make interface %s in the container: %w: give this one another name", a.IfName, ErrExists)
			}
			return nil, fmt.Errorf("make veth %s: %w: DEL this container's interface before another ADD", a.HostIfName, ErrExists)
		}
		// The library puts the new device on the bridge in a second step, so
		// it can be there although making it failed.
		err = fmt.Errorf("make veth %s on %s with peer %s in %s: %w", a.HostIfName, a.Bridge.Name, a.IfName, a.Netns, err)
		return nil, errors.Join(err, l.Delete(a.HostIfName))
	}
	defer func() {
		if err != nil {
			if undo := host.LinkDel(veth); undo != nil {
				err = errors.Join(err, fmt.Errorf("remove veth %s again: %w", a.HostIfName, undo))
			}
		}
	}()
	// A container may call its own published port: the bridge must send a
	// packet back through the port that it came from.
	if err := host.LinkSetHairpin(veth, true); err != nil {
		return nil, fmt.Errorf("turn hairpin mode of %s on: %w", a.HostIfName, err)
	}
	return configure(inside, ns, a)
}

func configure(inside *netlink.Handle, ns netns.NsHandle, a Attachment) ([]netip.Prefix, error) {
	link, err := inside.LinkByName(a.IfName)
	if err != nil {
		return nil, fmt.Errorf("find interface %s in the container: %w", a.IfName, err)
	}
	var v4, v6 netip.Addr
	for _, addr := range a.Addrs {
		nl := &netlink.Addr{IPNet: ipNet(addr.Prefix)}
		if addr.Prefix.Addr().Is6() {
			v6 = firstValid(v6, addr.Gateway)
			// The allocator keeps addresses unique; waiting for duplicate
			// address detection would cost the container its first second.
			nl.Flags = unix.IFA_F_NODAD
		} else {
			v4 = firstValid(v4, addr.Gateway)
		}
		err := inside.AddrAdd(link, nl)
		if errors.Is(err, unix.EACCES) && addr.Prefix.Addr().Is6() {
			// What the kernel says where IPv6 is off for the interface.
			if err = setSysctl(ns, "net/ipv6/conf/"+a.IfName+"/disable_ipv6", "0"); err == nil {
				err = inside.AddrAdd(link, nl)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("add address %s to %s: %w", addr.Prefix, a.IfName, err)
		}
	}
	if err := announce(ns, a.IfName, v4.IsValid(), v6.IsValid()); err != nil {
		return nil, err
	}
	if err := inside.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", a.IfName, err)
	}
	var done []netip.Prefix
	add := func(dst netip.Prefix) error {
		gw := v4
		if dst.Addr().Is6() {
			gw = v6
		}
		if !gw.IsValid() {
			return nil
		}
		err := inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Gw: gw.AsSlice()})
		if err == nil {
			done = append(done, dst)
		}
		return err
	}
	for _, dst := range a.Routes {
		err := add(dst)
		if errors.Is(err, unix.EEXIST) && dst.Bits() == 0 {
			var instead []netip.Prefix
			instead, err = a.insteadOf(inside, dst)
			for _, space := range instead {
				err = errors.Join(err, add(space))
			}
		}
		if err != nil {
			return nil, fmt.Errorf("add route %s to the container: %w", dst, err)
		}
	}
	return done, nil
}

func firstValid(a, b netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return b
}

// insteadOf are the destinations to route by this interface where another one
// has the route to everywhere.
func (a Attachment) insteadOf(inside *netlink.Handle, everywhere netip.Prefix) (out []netip.Prefix, err error) {
	family := netlink.FAMILY_V4
	if everywhere.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := whole(func() ([]netlink.Route, error) {
		return inside.RouteListFiltered(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return nil, fmt.Errorf("list the container's routes to everywhere: %w", err)
	}
	instead := a.Spaces
	for _, r := range routes {
		gw, _ := netip.AddrFromSlice(r.Gw)
		if slices.ContainsFunc(a.Spaces, func(s netip.Prefix) bool { return s.Contains(gw.Unmap()) }) {
			instead = a.Own
		}
	}
	for _, dst := range instead {
		if dst.Addr().Is6() == everywhere.Addr().Is6() {
			out = append(out, dst)
		}
	}
	return out, nil
}

// Delete removes the pair by its host end; absent is success.
func (l *Links) Delete(hostIfName string) error {
	link, err := l.handle.LinkByName(hostIfName)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find veth %s: %w", hostIfName, err)
	}
	// It can go on its own in between, with the container's namespace.
	if err := l.handle.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove veth %s: %w", hostIfName, err)
	}
	return nil
}

// announce has the kernel tell the link of the addresses when the interface
// comes up, so that nobody keeps an older holder's MAC.
func announce(ns netns.NsHandle, ifName string, v4, v6 bool) error {
	if v4 {
		if err := setSysctl(ns, "net/ipv4/conf/"+ifName+"/arp_notify", "1"); err != nil {
			return err
		}
	}
	if v6 {
		if err := setSysctl(ns, "net/ipv6/conf/"+ifName+"/ndisc_notify", "1"); err != nil {
			return err
		}
	}
	return nil
}

// setSysctl writes a sysctl of the namespace. Where /proc/sys can't be written
// (a read-only mount), nothing is set: no container fails for that.
func setSysctl(ns netns.NsHandle, name, value string) error {
	return within(ns, func() error {
		err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
		if err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set sysctl %s in the container: %w", name, err)
		}
		return nil
	})
}

func enter(ns netns.NsHandle) (h *netlink.Handle, err error) {
	err = within(ns, func() error {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	return h, err
}

// within runs f with this thread in ns. When the way back fails, the thread
// stays locked, and the runtime ends it with the goroutine.
func within(ns netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	back, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer back.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if backErr := netns.Set(back); backErr != nil {
		return errors.Join(err, fmt.Errorf("return to the host's namespace: %w", backErr))
	}
	runtime.UnlockOSThread()
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
