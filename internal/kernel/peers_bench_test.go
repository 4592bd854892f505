package kernel

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/dataplane"
)

// BenchmarkPeers installs all peers into an empty kernel, reads them back
// when nothing has to change, and installs them by the library's own calls,
// one an entry. A peer has five: a neighbour and a route of each family, and a
// forwarding entry.
func BenchmarkPeers(b *testing.B) {
	for _, n := range []int{10, 1000, 10000, 65000} {
		want := peersOf(agents(n + 1))
		report := func(b *testing.B) {
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "peers/s")
		}
		b.Run(fmt.Sprintf("install/%d", n), func(b *testing.B) {
			k := kernelWithVTEP(b)
			for b.Loop() {
				syncPeers(b, k, want)
				b.StopTimer()
				syncPeers(b, k, dataplane.NewPeers())
				b.StartTimer()
			}
			report(b)
		})
		b.Run(fmt.Sprintf("unchanged/%d", n), func(b *testing.B) {
			k := kernelWithVTEP(b)
			syncPeers(b, k, want)
			for b.Loop() {
				if s := syncPeers(b, k, want); s.Changed() {
					b.Fatal("it changed")
				}
			}
			report(b)
		})
		b.Run(fmt.Sprintf("one call per entry/%d", n), func(b *testing.B) {
			k := kernelWithVTEP(b)
			index := link(b, "vtep1024").Attrs().Index
			for b.Loop() {
				if err := oneCallPerEntry(index, want); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if _, err := k.SyncPeers(context.Background(), "vtep1024", dataplane.NewPeers()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			report(b)
		})
	}
}

func oneCallPerEntry(index int, want dataplane.Peers) error {
	for ip, m := range want.Neighs {
		if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: m.Hardware()}); err != nil {
			return err
		}
	}
	for m, dst := range want.FDB {
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
			IP: net.IP(dst.AsSlice()), HardwareAddr: m.Hardware(),
		}); err != nil {
			return err
		}
	}
	for dst, r := range want.Routes {
		if err := netlink.RouteReplace(&netlink.Route{
			LinkIndex: index, Dst: ipNet(dst), Gw: r.Gateway.AsSlice(), Protocol: RouteProtocol, Priority: int(r.Metric),
		}); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkEnsure is what every container's start pays when all is there.
func BenchmarkEnsure(b *testing.B) {
	k := kernelWithVTEP(b)
	self := agent(0)
	v, br := dataplane.VTEPOf(&self, 1450), dataplane.MesosBridgeOf(self.Overlays[0], 1450)
	ensureBridge(b, k, br)
	for b.Loop() {
		if repairs := ensureVTEP(b, k, v) + ensureBridge(b, k, br); repairs != "" {
			b.Fatal(repairs)
		}
		if _, err := k.EnsureForwarding(context.Background(), true, true); err != nil {
			b.Fatal(err)
		}
	}
}
