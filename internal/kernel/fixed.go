package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// fixedMetric is the metric of a route to a fixed address on this host. It is
// less than those of routes to other agents, so that it counts while one of
// these is there still.
const fixedMetric = 1

// fixedRoute names a route to a fixed address in an error.
type fixedRoute struct {
	verb, bridge string
	addr         netip.Addr
}

func (f fixedRoute) String() string {
	return fmt.Sprintf("%s route to the fixed address %s dev %s", f.verb, f.addr, f.bridge)
}

// SyncFixed makes want the fixed addresses that are routed to containers on the
// bridge. It answers with what it did.
func (k *Kernel) SyncFixed(ctx context.Context, bridge string, want []netip.Addr) (repairs []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	dev, have, err := k.fixedOn(ctx, bridge)
	if err != nil {
		return nil, err
	}
	var msgs []rtnl.Message
	for _, a := range unrouted(want, have) {
		msgs = append(msgs, dev.setFixed(a))
	}
	for _, r := range strayRoutes(want, have) {
		msgs = append(msgs, rtnl.Message{Type: unix.RTM_DELROUTE, Body: r.raw, What: fixedRoute{"delete", bridge, r.dst.Addr()}, AbsentOK: true})
	}
	_, errs := k.conn.Apply(ctx, msgs)
	for _, m := range msgs {
		repairs = append(repairs, m.What.String())
	}
	return repairs, errors.Join(errs...)
}

// CheckFixed tells what SyncFixed would change: which of want are not routed to
// the bridge, and which others are.
func (k *Kernel) CheckFixed(ctx context.Context, bridge string, want []netip.Addr) (lacking, stray []netip.Addr, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, nil, err
	}
	_, have, err := k.fixedOn(ctx, bridge)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range strayRoutes(want, have) {
		stray = append(stray, r.dst.Addr())
	}
	return unrouted(want, have), stray, nil
}

// fixedOn are our routes on the bridge.
func (k *Kernel) fixedOn(ctx context.Context, bridge string) (dev device, have []routeSeen, err error) {
	link, err := k.link(bridge)
	if err != nil {
		return dev, nil, err
	}
	dev = device{name: bridge, index: uint32(link.Attrs().Index)}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := readTable(ctx, k.conn, unix.RTM_GETROUTE, dev.routeDump(family), dev.parseRoute)
		if err != nil {
			return dev, nil, fmt.Errorf("list routes on %s: %w", bridge, err)
		}
		have = append(have, found...)
	}
	return dev, have, nil
}

func unrouted(want []netip.Addr, have []routeSeen) (out []netip.Addr) {
	for _, a := range want {
		if !slices.ContainsFunc(have, func(r routeSeen) bool { return isFixed(r, a) }) {
			out = append(out, a)
		}
	}
	return out
}

func strayRoutes(want []netip.Addr, have []routeSeen) (out []routeSeen) {
	for _, r := range have {
		if !slices.ContainsFunc(want, func(a netip.Addr) bool { return isFixed(r, a) }) {
			out = append(out, r)
		}
	}
	return out
}

func isFixed(r routeSeen, a netip.Addr) bool {
	return r.dst == netip.PrefixFrom(a, a.BitLen()) && r.route.Metric == fixedMetric && !r.route.Gateway.IsValid()
}

// AddFixed routes fixed addresses to containers on the bridge.
func (k *Kernel) AddFixed(ctx context.Context, bridge string, addrs ...netip.Addr) error {
	return k.eachFixed(ctx, bridge, addrs, device.setFixed)
}

// RemoveFixed ends what AddFixed did; that it was never done is success.
func (k *Kernel) RemoveFixed(ctx context.Context, bridge string, addrs ...netip.Addr) error {
	err := k.eachFixed(ctx, bridge, addrs, device.dropFixed)
	if errors.Is(err, ErrNoDevice) {
		return nil
	}
	return err
}

func (k *Kernel) eachFixed(ctx context.Context, bridge string, addrs []netip.Addr, message func(device, netip.Addr) rtnl.Message) error {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return err
	}
	link, err := k.link(bridge)
	if err != nil {
		return err
	}
	dev := device{name: bridge, index: uint32(link.Attrs().Index)}
	var msgs []rtnl.Message
	for _, a := range addrs {
		msgs = append(msgs, message(dev, a))
	}
	_, errs := k.conn.Apply(ctx, msgs)
	return errors.Join(errs...)
}

func (d device) setFixed(a netip.Addr) rtnl.Message {
	scope := uint8(unix.RT_SCOPE_LINK)
	if a.Is6() {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	return rtnl.Message{Type: unix.RTM_NEWROUTE, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Body: d.fixedBody(a, scope), What: fixedRoute{"add", d.name, a}}
}

func (d device) dropFixed(a netip.Addr) rtnl.Message {
	return rtnl.Message{Type: unix.RTM_DELROUTE, Body: d.fixedBody(a, unix.RT_SCOPE_NOWHERE), What: fixedRoute{"delete", d.name, a}, AbsentOK: true}
}

func (d device) fixedBody(a netip.Addr, scope uint8) []byte {
	m := rtMsg{family: familyOf(a), dstLen: uint8(a.BitLen()), table: unix.RT_TABLE_MAIN, protocol: RouteProtocol, scope: scope, typ: unix.RTN_UNICAST}
	b := m.append(make([]byte, 0, 64))
	b = rtnl.AppendAttr(b, unix.RTA_DST, a.AsSlice())
	b = rtnl.AppendAttr32(b, unix.RTA_OIF, d.index)
	return rtnl.AppendAttr32(b, unix.RTA_PRIORITY, fixedMetric)
}

// Disconnect sets a container's link down by the host's end of it; down tells
// whether it was up. That there is no such device is success.
func (k *Kernel) Disconnect(ctx context.Context, hostIf string) (down bool, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return false, err
	}
	link, err := k.link(hostIf)
	if errors.Is(err, ErrNoDevice) {
		return false, nil
	}
	if err != nil || link.Attrs().Flags&net.FlagUp == 0 {
		return false, err
	}
	if err := k.h.LinkSetDown(link); err != nil {
		return false, fmt.Errorf("set %s down: %w", hostIf, err)
	}
	return true, nil
}

// Connected tells whether the device called name is there and up.
func (k *Kernel) Connected(name string) bool {
	link, err := k.device(name)
	return err == nil && link.Attrs().Flags&net.FlagUp != 0
}

// Exists tells whether there is a device called name.
func (k *Kernel) Exists(name string) bool {
	_, err := k.device(name)
	return err == nil
}

func (k *Kernel) device(name string) (netlink.Link, error) {
	defer k.mu.Unlock()
	if err := k.begin(context.Background()); err != nil {
		return nil, err
	}
	return k.link(name)
}
