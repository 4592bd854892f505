// Package watch tells when something in the kernel changes that the companion
// keeps: our devices, their addresses and routes, what leads to other agents,
// packet forwarding, and the device under it all. It hears of changes by
// netlink and tells that there are some; what they are is for a look at the
// whole.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is asked for in bytes: room for some ten thousand events
	// that come at once.
	receiveBuffer = 8 << 20
	// datagramBytes is more than the kernel puts into one (32 KiB).
	datagramBytes = 64 << 10
	// retry is the pause before a new attempt when there is no socket.
	retry = time.Second
)

// Watch hears of one network namespace.
type Watch struct {
	log     *slog.Logger
	changed chan string
	under   atomic.Pointer[underlay]
	// open subscribes; each Read of what it gives is one datagram.
	open func() (io.ReadCloser, error)
	// ours are our devices' names by index. Only Run uses it.
	ours map[uint32]string
}

// underlay is the device that the agent's address is on.
type underlay struct {
	index uint32
	ip    netip.Addr
}

// New hears nothing before Run.
func New(log *slog.Logger) *Watch {
	w := &Watch{log: log, changed: make(chan string, 1), open: subscribe}
	w.under.Store(&underlay{})
	return w
}

// Changed yields when something of ours has changed, and says in words what
// came first. Changes that come while nobody reads are one.
func (w *Watch) Changed() <-chan string { return w.changed }

// SetUnderlay says which device and address matter beside ours. An index of 0
// means that no device has the address now.
func (w *Watch) SetUnderlay(index int, ip netip.Addr) {
	w.under.Store(&underlay{index: uint32(index), ip: ip})
}

func (w *Watch) signal(what string) {
	select {
	case w.changed <- what:
	default: // one is waiting already
	}
}

// Run listens until ctx ends, in the namespace of the calling thread. Whenever
// it may have missed something it says that there are changes.
func (w *Watch) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, unix.ENOBUFS) {
			w.log.Debug("more changes came than could be read; all is looked at anew")
			continue
		}
		w.log.Warn("changes of the kernel are not heard of", "error", err, "retry", retry)
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// listen is one subscription.
func (w *Watch) listen(ctx context.Context) error {
	socket, err := w.open()
	if err != nil {
		return err
	}
	// Closing ends a Read that waits.
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	defer socket.Close()
	// Devices that come after the subscription are told of by events, which
	// may repeat what is listed.
	if err := w.list(); err != nil {
		return err
	}
	w.signal("the watch began")
	buf := make([]byte, datagramBytes)
	for {
		n, err := socket.Read(buf)
		if err != nil {
			return fmt.Errorf("read netlink events: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("parse netlink events: %w", err)
		}
		for _, m := range msgs {
			if what := w.about(m.Header.Type, m.Data); what != "" {
				w.signal(what)
			}
		}
	}
}

// groups are the multicast groups of linux/rtnetlink.h that are listened to.
// RTNLGRP_NEIGH carries forwarding entries, too.
func groups() []int {
	return []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_NETCONF,
	}
}

func subscribe() (io.ReadCloser, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "netlink")
	// Without CAP_NET_ADMIN in the first user namespace the buffer stays
	// smaller, and more is looked at anew.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range groups() {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g)
		}
	}
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("subscribe to netlink events: %w", err)
	}
	return socket, nil
}

// list finds the devices of ours that are there.
func (w *Watch) list() error {
	const attempts = 10
	var links []netlink.Link
	var err error
	for range attempts {
		links, err = netlink.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("list the devices: %w", err)
	}
	w.ours = map[uint32]string{}
	for _, l := range links {
		if a := l.Attrs(); isOurs(a.Name) {
			w.ours[uint32(a.Index)] = a.Name
		}
	}
	return nil
}
