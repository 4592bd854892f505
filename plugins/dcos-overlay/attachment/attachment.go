// Package attachment is one container's link to a bridge: a veth pair with its
// peer in the container's network namespace, addresses and routes.
package attachment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/rtnl"
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

// timeout bounds each wait for the kernel: the lock of all network devices can
// be another's for a while.
const timeout = 30 * time.Second

// Links are the host's devices, in the network namespace of the thread that
// opened it.
type Links struct {
	conn *rtnl.Conn
	ns   netns.NsHandle
}

// Open opens a socket to them.
func Open() (*Links, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	conn, err := dial()
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return &Links{conn: conn, ns: ns}, nil
}

func dial() (*rtnl.Conn, error) {
	conn, err := rtnl.Dial(false)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return conn, conn.SetTimeout(timeout)
}

// Close closes the socket.
func (l *Links) Close() {
	l.conn.Close()
	l.ns.Close()
}

// Exist tells whether there is a device of that name.
func (l *Links) Exist(name string) bool {
	_, err := index(l.conn, name)
	return err == nil
}

// Bridge finds the bridge of that name. That the device is a bridge is seen
// when something is put on it.
func (l *Links) Bridge(name string) (Bridge, error) {
	b := Bridge{Name: name}
	var err error
	if b.Index, err = index(l.conn, name); err == nil {
		b.MTU, err = mtu(l.conn, name)
	}
	if err == nil {
		b.MAC, err = mac(l.conn, name)
	}
	if err != nil {
		return Bridge{}, fmt.Errorf("find bridge %s: %w", name, err)
	}
	return b, nil
}

// library is a socket of the netlink library's to the host's devices, for what
// is asked seldom.
func (l *Links) library() (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(l.ns)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
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
	ns, err := netns.GetFromPath(a.Netns)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", a.Netns, err)
	}
	defer ns.Close()
	// The thread enters once, for all that there is to do.
	enterErr := within(ns, func() error {
		inside, err := dial()
		if err != nil {
			return err
		}
		defer inside.Close()
		if err := l.makePair(inside, ns, a); err != nil {
			return err
		}
		if routes, err = configure(inside, ns, a); err != nil {
			return errors.Join(err, l.Delete(a.HostIfName))
		}
		return nil
	})
	return routes, enterErr
}

// makePair makes the veth pair on the bridge.
func (l *Links) makePair(inside *rtnl.Conn, ns netns.NsHandle, a Attachment) error {
	_, errs := l.conn.Apply(context.Background(), []rtnl.Message{
		pair(a, ns),
		// A container may call its own published port: the bridge must send a
		// packet back through the port that it came from.
		hairpin(a.HostIfName),
	})
	if len(errs) == 0 {
		return nil
	}
	// With the first, all the others fail, too.
	err := errs[0]
	if errors.Is(err, unix.EEXIST) {
		if _, lookErr := index(inside, a.IfName); lookErr == nil {
			return fmt.Errorf("make interface %s in the container: %w: give this one another name", a.IfName, ErrExists)
		}
		return fmt.Errorf("make veth %s: %w: DEL this container's interface before another ADD", a.HostIfName, ErrExists)
	}
	err = fmt.Errorf("%w%s", err, l.noBridge(a.Bridge))
	return errors.Join(err, l.Delete(a.HostIfName))
}

// noBridge says what a device is that should be a bridge; nothing if it is one.
func (l *Links) noBridge(b Bridge) string {
	h, err := l.library()
	if err != nil {
		return ""
	}
	defer h.Close()
	if link, err := h.LinkByName(b.Name); err == nil && link.Type() != "bridge" {
		return fmt.Sprintf(": device %s is a %s, not a bridge: remove or rename it", b.Name, link.Type())
	}
	return ""
}

// configure gives the container's end, in whose namespace the thread is, its
// addresses and routes, all in one send.
func configure(inside *rtnl.Conn, ns netns.NsHandle, a Attachment) ([]netip.Prefix, error) {
	device, err := index(inside, a.IfName)
	if err != nil {
		return nil, fmt.Errorf("find interface %s in the container: %w", a.IfName, err)
	}
	var v4, v6 netip.Addr
	var msgs, addrs []rtnl.Message
	for _, addr := range a.Addrs {
		if addr.Prefix.Addr().Is6() {
			v6 = firstValid(v6, addr.Gateway)
		} else {
			v4 = firstValid(v4, addr.Gateway)
		}
		addrs = append(addrs, address(a.IfName, device, addr.Prefix))
	}
	// The kernel tells the link of the addresses when the interface comes up,
	// so that nobody keeps an older holder's MAC.
	if v4.IsValid() {
		msgs = append(msgs, announce(a.IfName, device))
	}
	if v6.IsValid() {
		if err := prepare6(a.IfName); err != nil {
			return nil, err
		}
	}
	msgs = append(append(msgs, addrs...), up(a.IfName, device))
	for _, addr := range a.Addrs {
		// An address by itself, such as a fixed one, has no range that the
		// gateway could be in.
		if addr.Gateway.IsValid() && addr.Prefix.IsSingleIP() && addr.Gateway != addr.Prefix.Addr() {
			msgs = append(msgs, onLink(device, addr.Gateway))
		}
	}
	var done []netip.Prefix
	for _, dst := range a.Routes {
		gw := v4
		if dst.Addr().Is6() {
			gw = v6
		}
		if gw.IsValid() {
			msgs = append(msgs, route(device, dst, gw))
			done = append(done, dst)
		}
	}
	_, errs := inside.Apply(context.Background(), msgs)
	for _, err := range errs {
		dst, everywhere := taken(err)
		if !everywhere {
			return nil, err
		}
		gw := v4
		if dst.Addr().Is6() {
			gw = v6
		}
		instead, err := a.insteadOf(ns, dst)
		if err != nil {
			return nil, err
		}
		msgs = msgs[:0]
		for _, space := range instead {
			msgs = append(msgs, route(device, space, gw))
		}
		if _, errs := inside.Apply(context.Background(), msgs); len(errs) > 0 {
			return nil, errs[0]
		}
		done = replaceWith(done, dst, instead)
	}
	return done, nil
}

// taken tells whether err is that there is a route to everywhere already.
func taken(err error) (dst netip.Prefix, is bool) {
	var failed *rtnl.Error
	if !errors.As(err, &failed) || !errors.Is(err, unix.EEXIST) {
		return netip.Prefix{}, false
	}
	r, is := failed.Message.What.(routeTo)
	return netip.Prefix(r), is && netip.Prefix(r).Bits() == 0
}

func replaceWith(all []netip.Prefix, one netip.Prefix, by []netip.Prefix) []netip.Prefix {
	i := slices.Index(all, one)
	return slices.Concat(all[:i], by, all[i+1:])
}

func firstValid(a, b netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return b
}

// insteadOf are the destinations to route by this interface where another one
// has the route to everywhere.
func (a Attachment) insteadOf(ns netns.NsHandle, everywhere netip.Prefix) (out []netip.Prefix, err error) {
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, fmt.Errorf("open netlink in the container: %w", err)
	}
	defer inside.Close()
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
	_, errs := l.conn.Apply(context.Background(), []rtnl.Message{remove(hostIfName)})
	if len(errs) == 0 || errors.Is(errs[0], unix.ENODEV) {
		return nil
	}
	return errs[0]
}

// prepare6 turns IPv6 on for the interface, should it be off, has its addresses
// announced, and has redirects ignored: the host, which can't be kept from
// sending them, would have the container look on its own link for an address
// that may move to another host. The thread is in the container's namespace.
func prepare6(ifName string) error {
	dir := "net/ipv6/conf/" + ifName + "/"
	return errors.Join(setSysctl(dir+"disable_ipv6", "0"), setSysctl(dir+"ndisc_notify", "1"), setSysctl(dir+"accept_redirects", "0"))
}

// setSysctl writes a sysctl of the thread's namespace. Where /proc/sys can't be
// written (a read-only mount), nothing is set: no container fails for that.
func setSysctl(name, value string) error {
	fd, err := unix.Open("/proc/sys/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		err = errors.Join(err, unix.Close(fd))
	}
	if err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set sysctl %s in the container: %w", name, err)
	}
	return nil
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
