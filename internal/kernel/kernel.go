// Package kernel brings one network namespace to the state that package
// dataplane describes: the VTEP, the bridges, the forwarding sysctls, and what
// leads to the other agents. Every call is idempotent, compares with what the
// kernel really holds, and touches nothing but what is ours: the named
// devices, all neighbours and forwarding entries on the VTEP, and the routes
// on it that carry our protocol number.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/rtnl"
)

const (
	// RouteProtocol marks our routes. iproute2's rt_protos gives it to nobody
	// else.
	RouteProtocol = 44

	// defaultTimeout bounds the waiting of a call whose context has no
	// deadline.
	defaultTimeout = time.Minute
	// dumpAttempts is how often a dump is tried that changes of the tables
	// keep interrupting.
	dumpAttempts = 10
)

// ErrNoDevice is in the chain of an error about a device that is not there.
var ErrNoDevice = errors.New("no such device")

// Kernel speaks to the kernel about the namespace that it was opened in, from
// whichever thread it is called. Its calls may come from several goroutines;
// they are made one at a time.
type Kernel struct {
	mu   sync.Mutex
	ns   netns.NsHandle
	h    *netlink.Handle // devices and addresses
	conn *rtnl.Conn      // batches and large dumps
}

// Open returns a Kernel for the network namespace of the calling thread.
func Open() (*Kernel, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	c, err := rtnl.Dial(true)
	if err != nil {
		h.Close()
		ns.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &Kernel{ns: ns, h: h, conn: c}, nil
}

// Close frees the sockets. The state of the kernel stays as it is.
func (k *Kernel) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conn.Close()
	k.h.Close()
	k.ns.Close()
}

// begin starts a call: it takes the lock, which the caller has to release, and
// makes ctx's deadline that of the sockets.
func (k *Kernel) begin(ctx context.Context) error {
	k.mu.Lock()
	timeout := defaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		// A timeout of 0 would mean none.
		timeout = max(time.Until(deadline), time.Millisecond)
	}
	return errors.Join(ctx.Err(), k.h.SetSocketTimeout(timeout), k.conn.SetTimeout(timeout))
}

// Inside runs f, and the programs that it starts, in k's namespace.
func (k *Kernel) Inside(f func() error) error { return k.inside(f) }

// inside runs f on a thread that is in k's namespace.
func (k *Kernel) inside(f func() error) error {
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the thread's network namespace: %w", err)
	}
	defer here.Close()
	if here.Equal(k.ns) {
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := netns.Set(k.ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	err = f()
	if back := netns.Set(here); back != nil {
		// The thread stays locked, so that no other goroutine gets to run in
		// the wrong namespace.
		return errors.Join(err, fmt.Errorf("leave the network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// Underlay is the device that an agent's address is on.
type Underlay struct {
	Name  string
	Index int
	// MTU is in bytes.
	MTU int
}

// loopbackMTU stands for the MTU of the loopback device, whose 65536 says
// nothing of the way to other hosts: some hosts hold their address on it and
// announce it by a routing protocol.
const loopbackMTU = 1500

// Underlay finds the device that holds ip; if there is none, the error has
// ErrNoDevice in its chain.
func (k *Kernel) Underlay(ip netip.Addr) (Underlay, error) {
	defer k.mu.Unlock()
	if err := k.begin(context.Background()); err != nil {
		return Underlay{}, err
	}
	addrs, err := k.addrs(nil)
	if err != nil {
		return Underlay{}, fmt.Errorf("find the device of %s: %w", ip, err)
	}
	for _, a := range addrs {
		if prefixOf(a.IPNet).Addr() != ip.Unmap() {
			continue
		}
		link, err := k.h.LinkByIndex(a.LinkIndex)
		if err != nil {
			return Underlay{}, fmt.Errorf("look up the device of %s: %w", ip, err)
		}
		attrs := link.Attrs()
		u := Underlay{Name: attrs.Name, Index: attrs.Index, MTU: attrs.MTU}
		if attrs.Flags&net.FlagLoopback != 0 {
			u.MTU = min(u.MTU, loopbackMTU)
		}
		return u, nil
	}
	return Underlay{}, fmt.Errorf("no device of this host has the address %s: set ip, interface or ip_cidr to one that it has: %w", ip, ErrNoDevice)
}

// RemoveLink deletes the device called name; that it is absent is success.
func (k *Kernel) RemoveLink(name string) error {
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
	return k.deleteLink(link)
}

func (k *Kernel) deleteLink(link netlink.Link) error {
	err := k.h.LinkDel(link)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete device %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// link looks up a device by its name.
func (k *Kernel) link(name string) (netlink.Link, error) {
	link, err := k.h.LinkByName(name)
	var notFound netlink.LinkNotFoundError
	switch {
	case errors.As(err, &notFound), errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("look up device %s: %w", name, ErrNoDevice)
	case err != nil:
		return nil, fmt.Errorf("look up device %s: %w", name, err)
	}
	return link, nil
}

// addrs lists the addresses of one device, or of all if link is nil.
func (k *Kernel) addrs(link netlink.Link) ([]netlink.Addr, error) {
	for range dumpAttempts {
		addrs, err := k.h.AddrList(link, netlink.FAMILY_ALL)
		if err == nil {
			return addrs, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
	}
	return nil, fmt.Errorf("list addresses: %w", rtnl.ErrInterrupted)
}
