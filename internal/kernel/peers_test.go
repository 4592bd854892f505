package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// agent is the nth agent of a cluster of both families, n from 0.
func agent(n int) lease.Agent {
	b := [4]byte{44, 128, byte((n + 1) >> 8), byte(n + 1)}
	vtep6 := netip.MustParseAddr("fd01:a::").As16()
	vtep6[14], vtep6[15] = b[2], b[3]
	subnet6 := netip.MustParseAddr("fd01:b::").As16()
	subnet6[8], subnet6[9] = byte(n>>8), byte(n)
	return lease.Agent{
		IP: netip.AddrFrom4([4]byte{192, 0, b[2], b[3]}),
		VTEP: lease.VTEP{
			IP:  netip.PrefixFrom(netip.AddrFrom4(b), 16),
			IP6: netip.PrefixFrom(netip.AddrFrom16(vtep6), 64),
			MAC: network.MAC{0x70, 0xb3, 0xd5, 0x80, b[2], b[3]},
		},
		Overlays: []lease.Overlay{{
			Name:     "dcos",
			Subnets:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{9, byte(n >> 8), byte(n), 0}), 24)},
			Subnets6: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom16(subnet6), 80)},
		}},
	}
}

func agents(n int) []lease.Agent {
	var out []lease.Agent
	for i := range n {
		out = append(out, agent(i))
	}
	return out
}

// kernelWithVTEP is a Kernel in a fresh namespace with the VTEP of agent 0.
func kernelWithVTEP(t testing.TB) *Kernel {
	t.Helper()
	k := newKernel(t)
	self := agent(0)
	ensureVTEP(t, k, dataplane.VTEPOf(&self, 1450))
	return k
}

func syncPeers(t testing.TB, k *Kernel, want dataplane.Peers) Stats {
	t.Helper()
	s, err := k.SyncPeers(context.Background(), "vtep1024", want)
	if err != nil {
		t.Fatalf("SyncPeers: %v", err)
	}
	return s
}

// holds fails the test unless the kernel holds exactly want.
func holds(t interface {
	Helper()
	Fatalf(string, ...any)
}, k *Kernel, want dataplane.Peers) {
	t.Helper()
	got, err := k.Peers("vtep1024")
	if err != nil {
		t.Fatalf("Peers: %v", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("to get from what is there to what should be:\n%s", dataplane.Diff(want, got))
	}
}

func peersOf(agents []lease.Agent) dataplane.Peers {
	return dataplane.PeersOf(agents[0].IP, agents)
}

// routeText is the line of ip route for agent a's subnet of one family.
func routeText(dst, gateway string) string {
	return fmt.Sprintf("%s via %s dev vtep1024 proto 44 metric %d ", dst, gateway, dataplane.Metric(netip.MustParsePrefix(dst)))
}

// TestPeers follows agents that come, change and go, in the kernel's words.
func TestPeers(t *testing.T) {
	k := kernelWithVTEP(t)
	all := agents(3)
	syncPeers(t, k, peersOf(all))
	holds(t, k, peersOf(all))
	contains(t, ip(t, "route"), routeText("9.0.1.0/24", "44.128.0.2"), routeText("9.0.2.0/24", "44.128.0.3"))
	contains(t, ip(t, "-6 route"), routeText("fd01:b:0:0:1::/80", "fd01:a::2"))
	contains(t, ip(t, "neigh show dev vtep1024"), "44.128.0.2 lladdr 70:b3:d5:80:00:02 PERMANENT", "fd01:a::3 lladdr 70:b3:d5:80:00:03 PERMANENT")
	contains(t, bridge(t, "fdb show dev vtep1024"), "70:b3:d5:80:00:02 dst 192.0.0.2 self permanent", "70:b3:d5:80:00:03 dst 192.0.0.3 self permanent")

	if s := syncPeers(t, k, peersOf(all)); s.Changed() {
		t.Errorf("a second time it changed:\n%s", s.Changes)
	}

	// An agent gets another MAC and another underlay address.
	all[1].VTEP.MAC = mac("70:b3:d5:00:00:99")
	all[2].IP = netip.MustParseAddr("192.0.0.77")
	syncPeers(t, k, peersOf(all))
	holds(t, k, peersOf(all))
	fdb := bridge(t, "fdb show dev vtep1024")
	contains(t, fdb, "70:b3:d5:00:00:99 dst 192.0.0.2 self permanent", "70:b3:d5:80:00:03 dst 192.0.0.77 self permanent")
	lacks(t, fdb, "70:b3:d5:80:00:02", "192.0.0.3 ")
	contains(t, ip(t, "neigh show dev vtep1024"), "44.128.0.2 lladdr 70:b3:d5:00:00:99 PERMANENT")

	// A subnet moves to another agent.
	all[1].Overlays, all[2].Overlays = all[2].Overlays, all[1].Overlays
	syncPeers(t, k, peersOf(all))
	holds(t, k, peersOf(all))
	contains(t, ip(t, "route"), routeText("9.0.1.0/24", "44.128.0.3"))
	contains(t, ip(t, "-6 route"), routeText("fd01:b:0:0:1::/80", "fd01:a::3"))
	lacks(t, ip(t, "route"), routeText("9.0.1.0/24", "44.128.0.2"))

	// One goes.
	syncPeers(t, k, peersOf(all[:2]))
	holds(t, k, peersOf(all[:2]))
	lacks(t, ip(t, "route")+ip(t, "-6 route")+ip(t, "neigh show dev vtep1024"), "44.128.0.3", "fd01:a::3")

	syncPeers(t, k, dataplane.NewPeers())
	holds(t, k, dataplane.NewPeers())
	lacks(t, ip(t, "route")+ip(t, "-6 route")+ip(t, "neigh")+bridge(t, "fdb"), "proto 44", "PERMANENT", "192.0.0")
}

func TestPeersOverIPv6(t *testing.T) {
	k := newKernel(t)
	all := agents(3)
	for i := range all {
		all[i].IP = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1))
	}
	ensureVTEP(t, k, dataplane.VTEPOf(&all[0], 1430))
	syncPeers(t, k, peersOf(all))
	holds(t, k, peersOf(all))
	contains(t, bridge(t, "fdb show dev vtep1024"), "70:b3:d5:80:00:02 dst 2001:db8::2 self permanent")
}

// TestAddPeers: a caller that knows few agents leaves the others alone.
func TestAddPeers(t *testing.T) {
	k := kernelWithVTEP(t)
	all := agents(4)
	syncPeers(t, k, peersOf(all[:3]))
	known := []lease.Agent{all[0], all[3]}
	s, err := k.AddPeers(context.Background(), "vtep1024", peersOf(known))
	if err != nil || s.Changes.Deletes() != 0 {
		t.Fatalf("got %v, %v", s, err)
	}
	holds(t, k, peersOf(all))
}

// TestOthersUntouched: what is not ours stays, whatever is synced, and whether
// or not the kernel filters dumps.
func TestOthersUntouched(t *testing.T) {
	for name, strict := range map[string]int{"new kernel": 1, "old kernel": 0} {
		t.Run(name, func(t *testing.T) {
			k := kernelWithVTEP(t)
			if err := unix.SetsockoptInt(k.conn.FD, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, strict); err != nil {
				t.Fatal(err)
			}
			testOthersUntouched(t, k)
		})
	}
}

func testOthersUntouched(t *testing.T, k *Kernel) {
	ip(t, "link add uplink type veth peer name other")
	ip(t, "link set uplink up")
	ip(t, "link set other up")
	ip(t, "addr add 192.0.2.1/24 dev uplink")
	ensureBridge(t, k, sampleBridge())
	ip(t, "link set uplink master m-dcos")
	marks := []string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "fd77::/64", "192.0.2.9", "9.0.0.5", "2001:db8::9", "02:00:00:00:00:0a"}
	for _, line := range []string{
		"ip route add 10.1.0.0/16 via 44.128.0.7 dev vtep1024 proto static onlink",
		"ip route add 10.2.0.0/16 dev vtep1024 proto 44 table 77",
		"ip route add 10.3.0.0/16 via 192.0.2.9 dev uplink proto 44",
		"ip route add blackhole 10.4.0.0/16 proto 44",
		"ip -6 route add fd77::/64 dev uplink proto 44",
		"ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev uplink nud permanent",
		"ip neigh add 9.0.0.5 lladdr 02:00:00:00:00:05 dev m-dcos nud permanent",
		"ip neigh add 2001:db8::9 lladdr 02:00:00:00:00:09 dev uplink nud permanent",
		"bridge fdb add 02:00:00:00:00:0a dev uplink master static",
	} {
		command(t, line)
	}
	// Only the marked lines: the kernel itself adds and removes others.
	marked := func() string {
		all := ip(t, "route show table all") + ip(t, "-6 route show table all") + ip(t, "neigh show nud permanent") + bridge(t, "fdb")
		var out strings.Builder
		for line := range strings.Lines(all) {
			if slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(line, m) }) {
				out.WriteString(line)
			}
		}
		return out.String()
	}
	before := marked()
	contains(t, before, marks...)
	syncPeers(t, k, peersOf(agents(3)))
	holds(t, k, peersOf(agents(3)))
	if s := syncPeers(t, k, peersOf(agents(3))); s.Changed() {
		t.Errorf("a second time it changed:\n%s", s.Changes)
	}
	syncPeers(t, k, dataplane.NewPeers())
	holds(t, k, dataplane.NewPeers())
	if after := marked(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestForeignOnVTEP puts entries onto the VTEP that no sync would make. All
// have to go, and what is wanted has to be right, in one sync.
func TestForeignOnVTEP(t *testing.T) {
	for _, c := range []struct{ name, line string }{
		{"default destination", "bridge fdb append 00:00:00:00:00:00 dev vtep1024 dst 192.0.0.2"},
		{"two default destinations", "bridge fdb append 00:00:00:00:00:00 dev vtep1024 dst 192.0.0.2; bridge fdb append 00:00:00:00:00:00 dev vtep1024 dst 192.0.0.3"},
		{"multicast", "bridge fdb append 01:00:5e:00:00:01 dev vtep1024 dst 192.0.0.2"},
		{"unknown MAC", "bridge fdb add 02:00:00:00:00:01 dev vtep1024 dst 192.0.0.50"},
		{"other port", "bridge fdb replace 70:b3:d5:80:00:02 dev vtep1024 dst 192.0.0.2 port 4789"},
		{"other VNI", "bridge fdb replace 70:b3:d5:80:00:02 dev vtep1024 dst 192.0.0.2 vni 99"},
		{"ageing", "bridge fdb replace 70:b3:d5:80:00:02 dev vtep1024 dst 192.0.0.2 dynamic"},
		{"unknown neighbour", "ip neigh add 44.128.9.9 lladdr 02:00:00:00:00:01 dev vtep1024"},
		{"neighbour with the wrong MAC", "ip neigh replace 44.128.0.2 lladdr 02:00:00:00:00:01 dev vtep1024"},
		{"neighbour that ages", "ip neigh replace 44.128.0.2 lladdr 70:b3:d5:80:00:02 dev vtep1024 nud stale"},
		{"second route", "ip route add 9.0.1.0/24 via 44.128.0.3 dev vtep1024 proto 44 metric 5"},
		{"second IPv6 route", "ip route add fd01:b:0:0:1::/80 via fd01:a::3 dev vtep1024 proto 44 metric 5"},
		{"route with a TOS", "ip route add 9.0.1.0/24 tos 0x10 via 44.128.0.2 dev vtep1024 proto 44"},
		{"route without gateway", "ip route add 9.9.9.0/24 dev vtep1024 proto 44"},
		{"default route", "ip route add default via 44.128.0.3 dev vtep1024 proto 44"},
		{"multipath", "ip route add 9.9.9.0/24 proto 44 nexthop via 44.128.0.2 dev vtep1024 nexthop via 44.128.0.3 dev vtep1024"},
		{"IPv6 multipath", "ip route add fd99::/64 proto 44 nexthop via fd01:a::2 dev vtep1024 nexthop via fd01:a::3 dev vtep1024"},
		{"same key", fmt.Sprintf("ip route append 9.0.1.0/24 via 44.128.0.3 dev vtep1024 proto 44 metric %d", dataplane.Metric(netip.MustParsePrefix("9.0.1.0/24")))},
		{"same key before", fmt.Sprintf("ip route prepend 9.0.1.0/24 via 44.128.0.3 dev vtep1024 proto 44 metric %d", dataplane.Metric(netip.MustParsePrefix("9.0.1.0/24")))},
		{"same IPv6 key", fmt.Sprintf("ip route append fd01:b:0:0:1::/80 via fd01:a::3 dev vtep1024 proto 44 metric %d", dataplane.Metric(netip.MustParsePrefix("fd01:b:0:0:1::/80")))},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, first := range []string{"wanted first", "foreign first"} {
				t.Run(first, func(t *testing.T) {
					k := kernelWithVTEP(t)
					want := peersOf(agents(3))
					if first == "wanted first" {
						syncPeers(t, k, want)
					}
					for line := range strings.SplitSeq(c.line, "; ") {
						command(t, line)
					}
					if s := syncPeers(t, k, want); !s.Changed() {
						t.Error("it changed nothing")
					}
					holds(t, k, want)
					if s := syncPeers(t, k, want); s.Changed() {
						t.Errorf("it takes a second sync: %d foreign\n%s", s.Foreign, s.Changes)
					}
				})
			}
		})
	}
}

// TestDuplicateRoutes: where there are several and the wanted is one, the
// others go and that one is not touched.
func TestDuplicateRoutes(t *testing.T) {
	k := kernelWithVTEP(t)
	want := peersOf(agents(2))
	syncPeers(t, k, want)
	ip(t, "route prepend 9.0.1.0/24 via 44.128.0.3 dev vtep1024 proto 44 metric 5")
	ip(t, "route add fd01:b:0:0:1::/80 via fd01:a::3 dev vtep1024 proto 44 metric 5")
	s := syncPeers(t, k, want)
	if s.Foreign != 2 || !s.Changes.Empty() {
		t.Errorf("%d foreign\n%s", s.Foreign, s.Changes)
	}
	holds(t, k, want)
}

// TestErrorsOfSome: what can be done is done, and the error names the rest.
func TestErrorsOfSome(t *testing.T) {
	k := kernelWithVTEP(t)
	want := peersOf(agents(3))
	bad := dataplane.Peers{
		Routes: maps.Clone(want.Routes), Neighs: want.Neighs, FDB: maps.Clone(want.FDB),
	}
	dst := netip.MustParsePrefix("9.0.2.0/24")
	bad.Routes[dst] = dataplane.Route{Gateway: netip.MustParseAddr("44.128.0.1"), Metric: dataplane.Metric(dst)} // our own address
	for i := range 20 {
		bad.FDB[network.MAC{2, 0, 0, 0, 0, byte(i)}] = netip.MustParseAddr("2001:db8::1") // of the other family
	}
	s, err := k.SyncPeers(context.Background(), "vtep1024", bad)
	if err == nil || s.Failed != 21 {
		t.Fatalf("%d failed: %v", s.Failed, err)
	}
	contains(t, err.Error(), "add forwarding entry 02:00:00:00:00:00 dst 2001:db8::1 dev vtep1024: ", "and 11 more")
	if _, again := k.SyncPeers(context.Background(), "vtep1024", bad); again == nil || again.Error() != err.Error() {
		t.Errorf("the same errors became\n%v\nafter\n%v", again, err)
	}
	delete(want.Routes, dst)
	holds(t, k, want)

	// The error of the route alone, as new kernels and old ones report it.
	bad.FDB = want.FDB
	for _, capped := range []int{1, 0} {
		if err := unix.SetsockoptInt(k.conn.FD, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, capped); err != nil {
			t.Fatal(err)
		}
		_, err = k.SyncPeers(context.Background(), "vtep1024", bad)
		if !errors.Is(err, unix.EINVAL) {
			t.Fatalf("got %v", err)
		}
		contains(t, err.Error(), "add route 9.0.2.0/24 via 44.128.0.1 metric ", " dev vtep1024: invalid argument (Nexthop has invalid gateway)")
	}
}

// TestDeleteAbsent: somebody else was faster.
func TestDeleteAbsent(t *testing.T) {
	k := kernelWithVTEP(t)
	dev, err := k.vtepDevice("vtep1024")
	if err != nil {
		t.Fatal(err)
	}
	msgs := dev.messages(dataplane.Diff(dataplane.NewPeers(), peersOf(agents(3))))
	if failed, errs := k.conn.Apply(context.Background(), msgs); failed != 0 {
		t.Errorf("%d of %d failed: %v", failed, len(msgs), errs)
	}
}

func TestCancelled(t *testing.T) {
	k := kernelWithVTEP(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := k.SyncPeers(ctx, "vtep1024", peersOf(agents(3))); !errors.Is(err, context.Canceled) {
		t.Errorf("SyncPeers: %v", err)
	}
	if _, err := k.EnsureVTEP(ctx, sampleVTEP()); !errors.Is(err, context.Canceled) {
		t.Errorf("EnsureVTEP: %v", err)
	}
	holds(t, k, dataplane.NewPeers())
}

// TestManyPeers takes many batches in each direction.
func TestManyPeers(t *testing.T) {
	k := kernelWithVTEP(t)
	all := agents(2001)
	syncPeers(t, k, peersOf(all))
	holds(t, k, peersOf(all))
	if n := strings.Count(ip(t, "route show proto 44"), "\n"); n != 2000 {
		t.Errorf("%d routes", n)
	}
	if n := strings.Count(bridge(t, "fdb show dev vtep1024"), "\n"); n != 2000 {
		t.Errorf("%d forwarding entries", n)
	}
	if n := strings.Count(ip(t, "neigh show dev vtep1024 nud permanent"), "\n"); n != 4000 {
		t.Errorf("%d neighbours", n)
	}
	few := peersOf(slices.Concat(all[:1], all[1000:1010]))
	syncPeers(t, k, few)
	holds(t, k, few)
}

// TestRandomWalk goes from one random state to another, with others' meddling
// in between; after each sync the kernel holds what it should.
func TestRandomWalk(t *testing.T) {
	k := kernelWithVTEP(t)
	meddling := []string{
		"ip route flush dev vtep1024 proto 44",
		"ip -6 route flush dev vtep1024 proto 44",
		"ip neigh flush dev vtep1024 nud permanent",
		"bridge fdb append 70:b3:d5:80:00:02 dev vtep1024 dst 192.0.0.200",
		"bridge fdb append 00:00:00:00:00:00 dev vtep1024 dst 192.0.0.2",
		"ip route replace 9.0.1.0/24 via 44.128.0.77 dev vtep1024 proto 44 metric 5",
		"ip route replace fd01:b:0:0:1::/80 via fd01:a::77 dev vtep1024 proto 44 metric 5",
		"ip neigh replace 44.128.0.3 lladdr 02:00:00:00:00:03 dev vtep1024",
	}
	rapid.Check(t, func(t *rapid.T) {
		want := rapidPeers().Draw(t, "want")
		for _, line := range rapid.SliceOfN(rapid.SampledFrom(meddling), 0, 2).Draw(t, "meddling") {
			words := strings.Fields(line)
			run(words) // may fail: the entry may be there already
		}
		if _, err := k.SyncPeers(context.Background(), "vtep1024", want); err != nil {
			t.Fatalf("SyncPeers: %v", err)
		}
		holds(t, k, want)
		if s, err := k.SyncPeers(context.Background(), "vtep1024", want); err != nil || s.Changed() {
			t.Fatalf("a second time it changed (%v):\n%s", err, s.Changes)
		}
	})
}

// rapidPeers are states over few keys, so that they clash.
func rapidPeers() *rapid.Generator[dataplane.Peers] {
	return rapid.Custom(func(t *rapid.T) dataplane.Peers {
		p := dataplane.NewPeers()
		all := agents(7)
		pick := func(label string) lease.Agent { return rapid.SampledFrom(all[1:]).Draw(t, label) }
		for _, a := range all[1:] {
			if rapid.Bool().Draw(t, "has routes") {
				for _, s := range a.Overlays[0].AllSubnets() {
					gw := pick("gateway").VTEP
					route := dataplane.Route{Gateway: gw.IP.Addr(), Metric: dataplane.Metric(s)}
					if s.Addr().Is6() {
						route.Gateway = gw.IP6.Addr()
					}
					if rapid.Bool().Draw(t, "other metric") {
						route.Metric = 1024
					}
					p.Routes[s] = route
				}
			}
			if rapid.Bool().Draw(t, "has neighbours") {
				p.Neighs[a.VTEP.IP.Addr()] = pick("MAC").VTEP.MAC
				p.Neighs[a.VTEP.IP6.Addr()] = pick("MAC").VTEP.MAC
			}
			if rapid.Bool().Draw(t, "has forwarding") {
				p.FDB[a.VTEP.MAC] = pick("host").IP
			}
		}
		return p
	})
}
