package registry

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// BenchmarkLoad reads 65,536 agents that are alive, each with one subnet, from
// an etcd in this process.
func BenchmarkLoad(b *testing.B) {
	store, err := etcd.Start(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	r := New(store.Client, Options{MaxTxnOps: store.MaxTxnOps()})
	n := network.Network{VTEPSubnet: netip.MustParsePrefix("44.128.0.0/12"), VTEPMACOUI: "70:B3:D5:00:00:00",
		Overlays: []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24}}}
	if _, err := r.Seed(b.Context(), n); err != nil {
		b.Fatal(err)
	}
	p := &plan{}
	for i := range 1 << 16 {
		at := func(first byte) netip.Addr {
			return netip.AddrFrom4([4]byte{first, byte(i >> 16), byte(i >> 8), byte(i)})
		}
		a := &lease.Agent{ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), IP: at(10), Config: lease.DefaultNetworkConfig()}
		a.VTEP.IP = netip.PrefixFrom(netip.AddrFrom4([4]byte{44, 128 + byte(i>>16), byte(i >> 8), byte(i)}), 12)
		a.VTEP.MAC, err = n.VTEPMAC(a.VTEP.IP.Addr())
		if err != nil {
			b.Fatal(err)
		}
		a.Overlays = []lease.Overlay{{Name: "dcos", Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{9, byte(i >> 8), byte(i), 0}), 24)}, State: lease.State{Status: lease.StatusOK}}}
		p.put(keyAgent(a.IP), a)
		p.putIP(keyID(a.ID), a.IP)
		for _, u := range units(a) {
			p.putIP(u.key, a.IP)
		}
		p.put(keyAlive(a.IP), storedAlive{Addresses: map[string]api.Addresses{"dcos": {Mesos: &api.Usage{Used: 3, Free: 122}}}})
		if len(p.ops) >= 1000 || i == 1<<16-1 {
			if _, _, err := r.commit(b.Context(), p); err != nil {
				b.Fatal(err)
			}
			p = &plan{}
		}
	}
	for b.Loop() {
		began := time.Now()
		x, err := r.load(b.Context(), pageSize)
		if err != nil || len(x.agents) != 1<<16 {
			b.Fatal(len(x.agents), err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/load")
	}
}
