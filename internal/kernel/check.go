package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/network"
)

// The Check methods look as their namesakes do that repair, and change
// nothing. They say in words what is wrong: nothing when all is right.

// CheckVTEP says what EnsureVTEP would repair.
func (k *Kernel) CheckVTEP(ctx context.Context, v dataplane.VTEP) (problems []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	link, err := k.link(v.Name)
	if errors.Is(err, ErrNoDevice) {
		return k.portProblems(v, []string{v.Name + ": it is missing"}), nil
	}
	if err != nil {
		return nil, err
	}
	if why := misfit(link, v); why != "" {
		return []string{v.Name + ": " + why}, nil
	}
	problems, err = k.differences(link, settings{mac: v.MAC, mtu: v.MTU, addrs: v.Addrs})
	if err != nil {
		return problems, err
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		problems = k.portProblems(v, problems)
	}
	if !v.TxOffload {
		have := ethtoolValue{cmd: ethtoolGetTxChecksum}
		if err := ethtool(k.conn, v.Name, &have); err != nil {
			return problems, fmt.Errorf("look at tx checksum offload of %s: %w", v.Name, err)
		}
		if have.data != 0 {
			problems = append(problems, v.Name+": tx checksum offload is on")
		}
	}
	return problems, nil
}

// portProblems adds to problems who has v's UDP port, if it is not free for it.
func (k *Kernel) portProblems(v dataplane.VTEP, problems []string) []string {
	var busy error
	err := k.inside(func() error {
		network, any := "udp4", netip.IPv4Unspecified()
		if v.Local.Is6() {
			network, any = "udp6", netip.IPv6Unspecified()
		}
		conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(any, uint16(v.Port))))
		if busy = err; err == nil {
			return conn.Close()
		}
		return nil
	})
	if err == nil && errors.Is(busy, unix.EADDRINUSE) {
		problems = append(problems, v.Name+": "+k.portHolder(v))
	}
	return problems
}

// CheckBridge says what EnsureBridge would repair.
func (k *Kernel) CheckBridge(ctx context.Context, b dataplane.Bridge) (problems []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	link, err := k.link(b.Name)
	if errors.Is(err, ErrNoDevice) {
		return []string{b.Name + ": it is missing"}, nil
	}
	if err != nil {
		return nil, err
	}
	if link.Type() != "bridge" {
		return []string{fmt.Sprintf("%s: it is of kind %s, not bridge", b.Name, link.Type())}, nil
	}
	return k.differences(link, bridgeSettings(b))
}

// CheckForwarding says which of the sysctls that EnsureForwarding sets are off.
func (k *Kernel) CheckForwarding(ctx context.Context, v4, v6 bool) (problems []string, err error) {
	var keys []string
	if v4 {
		keys = append(keys, forwarding4)
	}
	if v6 {
		keys = append(keys, forwarding6)
	}
	return k.checkSysctls(ctx, "1", keys...)
}

// CheckNoRedirects says what EnsureNoRedirects would repair.
func (k *Kernel) CheckNoRedirects(ctx context.Context, bridge string) (problems []string, err error) {
	return k.checkSysctls(ctx, "0", sendRedirects(bridge), sendRedirects("all"))
}

// checkSysctls tells which of the sysctls with the paths keys are not want.
func (k *Kernel) checkSysctls(ctx context.Context, want string, keys ...string) (problems []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	err = k.inside(func() error {
		for _, key := range keys {
			have, err := readSysctl(key)
			if err != nil {
				return err
			}
			if have != want {
				problems = append(problems, fmt.Sprintf("%s is %s, not %s", sysctlName(key), have, want))
			}
		}
		return nil
	})
	return problems, err
}

// CheckPeers says what SyncPeers would change.
func (k *Kernel) CheckPeers(ctx context.Context, vtep string, want dataplane.Peers) (Stats, error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return Stats{}, err
	}
	dev, err := k.vtepDevice(vtep)
	if err != nil {
		return Stats{}, err
	}
	have, err := k.holding(ctx, dev, want)
	if err != nil {
		return Stats{}, err
	}
	return Stats{Changes: dataplane.Diff(want, have.peers), Foreign: len(have.foreign)}, nil
}

// differences says in what link differs from s.
func (k *Kernel) differences(link netlink.Link, s settings) (problems []string, err error) {
	attrs := link.Attrs()
	found := func(format string, args ...any) {
		problems = append(problems, attrs.Name+": "+fmt.Sprintf(format, args...))
	}
	if s.mtu > 0 && attrs.MTU != s.mtu {
		found("its MTU is %d, not %d", attrs.MTU, s.mtu)
	}
	if have := attrs.HardwareAddr.String(); s.mac != (network.MAC{}) && have != s.mac.String() {
		found("its MAC is %s, not %s", have, s.mac)
	}
	if attrs.Flags&net.FlagUp == 0 {
		found("it is down")
	}
	have, err := k.addrs(link)
	if err != nil {
		return problems, fmt.Errorf("%s: %w", attrs.Name, err)
	}
	for _, a := range have {
		if p := prefixOf(a.IPNet); !slices.Contains(s.addrs, p) {
			found("it has the address %s, which is not its own", p)
		}
	}
	for _, p := range s.addrs {
		if !slices.ContainsFunc(have, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == p }) {
			found("it lacks the address %s", p)
		} else if attrs.Flags&net.FlagUp != 0 && hasLink(p) && !k.onLink(link, p) {
			found("it lacks the route to its own range %s", p.Masked())
		}
	}
	err = k.inside(func() error {
		have, err := readSysctl("net/ipv6/conf/" + attrs.Name + "/accept_ra")
		if err == nil && have != "0" {
			found("it believes router advertisements (accept_ra is %s, not 0)", have)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // no IPv6 on this device
		}
		return err
	})
	return problems, err
}

// MTU is that of the device called name, in bytes; if there is none, the error
// has ErrNoDevice in its chain.
func (k *Kernel) MTU(name string) (int, error) {
	defer k.mu.Unlock()
	if err := k.begin(context.Background()); err != nil {
		return 0, err
	}
	link, err := k.link(name)
	if err != nil {
		return 0, err
	}
	return link.Attrs().MTU, nil
}
