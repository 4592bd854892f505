package contest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/bench/report"
	"github.com/dcos/dcos-overlay/bench/stat"
	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Program measures how long it takes until the kernel knows all other agents,
// and how long to see that it does. A peer is a neighbour, a forwarding entry
// and a route.
func (c *Contest) Program() ([]report.Row, error) {
	c.Log(fmt.Sprintf("%d peers", c.Peers))
	host, err := c.Machine.Add("peers")
	if err != nil {
		return nil, err
	}
	var rows []report.Row
	err = c.Machine.In(host, func() error {
		rows, err = c.program()
		return err
	})
	return rows, err
}

func (c *Contest) program() ([]report.Row, error) {
	ctx := context.Background()
	k, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	want := peers(c.Peers)
	device := func() error {
		if err := k.RemoveLink(network.VTEPName); err != nil {
			return err
		}
		_, err := k.EnsureVTEP(ctx, dataplane.VTEP{
			Name: network.VTEPName, VNI: 1024, Port: 64000, MTU: 1450, Local: netip.MustParseAddr("10.77.8.1"),
			MAC: network.MAC{0x70, 0xb3, 0xd5, 0x80, 0, 1}, Addrs: []netip.Prefix{netip.MustParsePrefix("44.128.0.1/9")}, TxOffload: true,
		})
		return err
	}
	var again stat.Sample
	both, err := c.duel(c.Slow,
		func(int) (float64, error) {
			if err := device(); err != nil {
				return 0, err
			}
			began := time.Now()
			if s, err := k.SyncPeers(ctx, network.VTEPName, want); err != nil || s.Changes.Sets() != 3*c.Peers {
				return 0, fmt.Errorf("%d entries were set: %w", s.Changes.Sets(), err)
			}
			took := time.Since(began)
			began = time.Now()
			if s, err := k.SyncPeers(ctx, network.VTEPName, want); err != nil || s.Changed() {
				return 0, fmt.Errorf("%d entries were set again: %w", s.Changes.Sets(), err)
			}
			again = append(again, ms(time.Since(began)))
			return ms(took), nil
		},
		func(int) (float64, error) {
			if err := device(); err != nil {
				return 0, err
			}
			began := time.Now()
			err := oneByOne(want)
			return ms(time.Since(began)), err
		})
	if err != nil {
		return nil, err
	}
	row := func(what string, ours stat.Sample, goal float64) report.Row {
		return report.Row{Part: "peers", What: fmt.Sprintf("%d peers %s", c.Peers, what), Ours: ours.Sum(), Against: "programmed flannel's way",
			Peer: both[1].Sum(), Ratio: stat.Ratios(ours, both[1]).Sum(), Unit: "ms", Goal: goal}
	}
	// 30 times faster, and 0.03.
	return []report.Row{row("programmed", both[0], 1.0/30), row("looked at, unchanged", again, 0.03)}, nil
}

func peers(n int) dataplane.Peers {
	p := dataplane.NewPeers()
	for i := range uint32(n) {
		vtep := addr(0x2c800002 + i)
		subnet := netip.PrefixFrom(addr(0x09000100+i<<8), 24)
		hw := network.MAC{0x70, 0xb3, 0xd5, byte(0x80 + (i+2)>>16), byte((i + 2) >> 8), byte(i + 2)}
		p.Neighs[vtep] = hw
		p.FDB[hw] = addr(0xac100002 + i)
		p.Routes[subnet] = dataplane.Route{Gateway: vtep, Metric: dataplane.Metric(subnet)}
	}
	return p
}

func addr(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// oneByOne is how flannel's vxlan backend does it (pkg/backend/vxlan): each
// entry by a call of the library's package, which opens a socket for it, and
// one metric for all routes.
func oneByOne(want dataplane.Peers) error {
	link, err := netlink.LinkByName(network.VTEPName)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	for subnet, r := range want.Routes {
		hw := want.Neighs[r.Gateway]
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: r.Gateway.AsSlice(), HardwareAddr: hw.Hardware(),
		}); err != nil {
			return err
		}
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, State: netlink.NUD_PERMANENT, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
			IP: want.FDB[hw].AsSlice(), HardwareAddr: hw.Hardware(),
		}); err != nil {
			return err
		}
		dst := &net.IPNet{IP: subnet.Addr().AsSlice(), Mask: net.CIDRMask(subnet.Bits(), 32)}
		route := &netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_UNIVERSE, Dst: dst, Gw: r.Gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
		if err := netlink.RouteReplace(route); err != nil {
			return err
		}
	}
	return nil
}
