package dataplane

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

func mac(s string) network.MAC {
	m, err := network.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// sample are three agents: a master with a VTEP only, one with both families,
// one with two overlays and a second subnet but no IPv6.
func sample() []lease.Agent {
	return []lease.Agent{
		{
			IP:   netip.MustParseAddr("172.17.0.2"),
			VTEP: lease.VTEP{IP: netip.MustParsePrefix("44.128.0.1/20"), IP6: netip.MustParsePrefix("fd01:a::1/64"), MAC: mac("70:b3:d5:80:00:01")},
		},
		{
			IP:   netip.MustParseAddr("172.17.0.3"),
			VTEP: lease.VTEP{IP: netip.MustParsePrefix("44.128.0.2/20"), IP6: netip.MustParsePrefix("fd01:a::2/64"), MAC: mac("70:b3:d5:80:00:02")},
			Overlays: []lease.Overlay{
				{Name: "dcos", Subnets: prefixes("9.0.1.0/24")},
				{Name: "dcos6", Subnets6: prefixes("fd01:b:0:0:1::/80")},
			},
		},
		{
			IP:   netip.MustParseAddr("172.17.0.4"),
			VTEP: lease.VTEP{IP: netip.MustParsePrefix("44.128.0.3/20"), MAC: mac("70:b3:d5:80:00:03")},
			Overlays: []lease.Overlay{
				{Name: "dcos", Subnets: prefixes("9.0.2.0/24", "9.0.9.0/24")},
				{Name: "dcos6", Subnets6: prefixes("fd01:b:0:0:2::/80")},
			},
		},
	}
}

func TestVTEPOf(t *testing.T) {
	self := sample()[1]
	got := VTEPOf(&self, 1450)
	want := VTEP{
		Name: "vtep1024", VNI: 1024, Port: 64000, MTU: 1450, MAC: mac("70:b3:d5:80:00:02"),
		Local: netip.MustParseAddr("172.17.0.3"), Addrs: prefixes("44.128.0.2/20", "fd01:a::2/64"), TxOffload: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if s := "vxlan vtep1024 id 1024 port 64000 local 172.17.0.3 mac 70:b3:d5:80:00:02 mtu 1450 addr 44.128.0.2/20 addr fd01:a::2/64"; got.String() != s {
		t.Error(got)
	}
	got.TxOffload = false
	if !strings.HasSuffix(got.String(), " tx off") {
		t.Error(got)
	}
	self = sample()[2]
	if got := VTEPOf(&self, 1450).Addrs; !slices.Equal(got, prefixes("44.128.0.3/20")) {
		t.Errorf("without IPv6: %v", got)
	}
}

func TestMesosBridgeOf(t *testing.T) {
	for _, c := range []struct {
		overlay lease.Overlay
		want    string
	}{
		{lease.Overlay{Name: "dcos", Subnets: prefixes("9.0.1.0/24")}, "bridge m-dcos mac 0a:58:09:00:01:01 mtu 1400 addr 9.0.1.1/25"},
		{lease.Overlay{Name: "dcos6", Subnets6: prefixes("fd01:b:0:0:1::/80")}, "bridge m-dcos6 mac 0a:58:00:00:00:01 mtu 1400 addr fd01:b::1:0:0:1/81"},
		{
			lease.Overlay{Name: "dual", Subnets: prefixes("9.0.1.0/24", "9.0.7.0/24"), Subnets6: prefixes("fd01:b:0:0:1::/80")},
			"bridge m-dual mac 0a:58:09:00:01:01 mtu 1400 addr 9.0.1.1/25 addr 9.0.7.1/24 addr fd01:b::1:0:0:1/81",
		},
		{lease.Overlay{Name: "none"}, "bridge m-none mac 00:00:00:00:00:00 mtu 1400"},
	} {
		if got := MesosBridgeOf(c.overlay, 1400).String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// noMetrics takes the metrics out of lines, since their values say nothing.
func noMetrics(lines string) string {
	var out []string
	for _, l := range strings.Split(lines, "\n") {
		l, _, _ = strings.Cut(l, " metric")
		out = append(out, l)
	}
	return strings.Join(out, "\n")
}

func TestPeersOf(t *testing.T) {
	all := sample()
	for _, c := range []struct {
		name, self, want string
		agents           []lease.Agent
	}{
		{"the master's", "172.17.0.2", `
neighbour 44.128.0.2 lladdr 70:b3:d5:80:00:02
neighbour 44.128.0.3 lladdr 70:b3:d5:80:00:03
neighbour fd01:a::2 lladdr 70:b3:d5:80:00:02
forwarding entry 70:b3:d5:80:00:02 dst 172.17.0.3
forwarding entry 70:b3:d5:80:00:03 dst 172.17.0.4
route 9.0.1.0/24 via 44.128.0.2
route 9.0.2.0/24 via 44.128.0.3
route 9.0.9.0/24 via 44.128.0.3
route fd01:b:0:0:1::/80 via fd01:a::2`, all},
		{"the second agent's", "172.17.0.4", `
neighbour 44.128.0.1 lladdr 70:b3:d5:80:00:01
neighbour 44.128.0.2 lladdr 70:b3:d5:80:00:02
neighbour fd01:a::1 lladdr 70:b3:d5:80:00:01
neighbour fd01:a::2 lladdr 70:b3:d5:80:00:02
forwarding entry 70:b3:d5:80:00:01 dst 172.17.0.2
forwarding entry 70:b3:d5:80:00:02 dst 172.17.0.3
route 9.0.1.0/24 via 44.128.0.2
route fd01:b:0:0:1::/80 via fd01:a::2`, all},
		{"a stranger's", "172.17.0.9", `
neighbour 44.128.0.1 lladdr 70:b3:d5:80:00:01
neighbour fd01:a::1 lladdr 70:b3:d5:80:00:01
forwarding entry 70:b3:d5:80:00:01 dst 172.17.0.2`, all[:1]},
		{"over IPv6", "2001:db8::1", "\n", all},
		{"alone", "172.17.0.2", "\n", all[:1]},
	} {
		got := PeersOf(netip.MustParseAddr(c.self), c.agents)
		if s := noMetrics(got.String()); s != strings.TrimPrefix(c.want, "\n") {
			t.Errorf("%s: got\n%s", c.name, s)
		}
		for dst, r := range got.Routes {
			if r.Metric != Metric(dst) {
				t.Errorf("%s has metric %d", dst, r.Metric)
			}
		}
	}
}

// TestPeersOfConflicts: nothing may lead to the wrong agent.
func TestPeersOfConflicts(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(agents []lease.Agent)
		want   string
	}{
		{"two have one MAC", func(a []lease.Agent) { a[2].VTEP.MAC = a[1].VTEP.MAC }, `
neighbour 44.128.0.2 lladdr 70:b3:d5:80:00:02
neighbour fd01:a::2 lladdr 70:b3:d5:80:00:02
forwarding entry 70:b3:d5:80:00:02 dst 172.17.0.3
route 9.0.1.0/24 via 44.128.0.2
route fd01:b:0:0:1::/80 via fd01:a::2`},
		{"one has our MAC", func(a []lease.Agent) { a[1].VTEP.MAC = a[0].VTEP.MAC }, `
neighbour 44.128.0.3 lladdr 70:b3:d5:80:00:03
forwarding entry 70:b3:d5:80:00:03 dst 172.17.0.4
route 9.0.2.0/24 via 44.128.0.3
route 9.0.9.0/24 via 44.128.0.3`},
		{"two have one VTEP address", func(a []lease.Agent) { a[2].VTEP.IP = a[1].VTEP.IP }, `
neighbour 44.128.0.2 lladdr 70:b3:d5:80:00:02
neighbour fd01:a::2 lladdr 70:b3:d5:80:00:02
forwarding entry 70:b3:d5:80:00:02 dst 172.17.0.3
forwarding entry 70:b3:d5:80:00:03 dst 172.17.0.4
route 9.0.1.0/24 via 44.128.0.2
route fd01:b:0:0:1::/80 via fd01:a::2`},
		{"two have one subnet, one has ours", func(a []lease.Agent) {
			a[0].Overlays = []lease.Overlay{{Name: "dcos", Subnets: prefixes("9.0.9.0/24")}}
			a[2].Overlays[0].Subnets[0] = a[1].Overlays[0].Subnets[0]
		}, `
neighbour 44.128.0.2 lladdr 70:b3:d5:80:00:02
neighbour 44.128.0.3 lladdr 70:b3:d5:80:00:03
neighbour fd01:a::2 lladdr 70:b3:d5:80:00:02
forwarding entry 70:b3:d5:80:00:02 dst 172.17.0.3
forwarding entry 70:b3:d5:80:00:03 dst 172.17.0.4
route 9.0.1.0/24 via 44.128.0.2
route fd01:b:0:0:1::/80 via fd01:a::2`},
	} {
		t.Run(c.name, func(t *testing.T) {
			agents := sample()
			c.change(agents)
			got := PeersOf(agents[0].IP, agents)
			if s := noMetrics(got.String()); s != strings.TrimPrefix(c.want, "\n") {
				t.Errorf("got\n%s", s)
			}
			slices.Reverse(agents)
			if again := PeersOf(netip.MustParseAddr("172.17.0.2"), agents); !reflect.DeepEqual(again, got) {
				t.Errorf("in another order:\n%s", again)
			}
		})
	}
}

// TestPeersOfSelfFirst: our own claim stands against a lower address's.
func TestPeersOfSelfFirst(t *testing.T) {
	agents := sample()
	agents[0].VTEP.MAC = agents[2].VTEP.MAC
	agents[1].Overlays[0].Subnets = agents[2].Overlays[0].Subnets
	want := `neighbour 44.128.0.2 lladdr 70:b3:d5:80:00:02
neighbour fd01:a::2 lladdr 70:b3:d5:80:00:02
forwarding entry 70:b3:d5:80:00:02 dst 172.17.0.3
route fd01:b:0:0:1::/80 via fd01:a::2`
	if got := noMetrics(PeersOf(agents[2].IP, agents).String()); got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestMetric pins values: the kernels of running hosts hold them.
func TestMetric(t *testing.T) {
	for subnet, want := range map[string]uint32{
		"9.0.1.0/24":        931818775,
		"9.0.1.77/24":       931818775,
		"9.0.2.0/24":        1718683442,
		"fd01:b:0:0:1::/80": 578846171,
	} {
		if got := Metric(netip.MustParsePrefix(subnet)); got != want {
			t.Errorf("%s: %d", subnet, got)
		}
	}
	seen := map[uint32]int{}
	for i := range 1 << 16 {
		m := Metric(netip.PrefixFrom(netip.AddrFrom4([4]byte{9, byte(i >> 8), byte(i), 0}), 24))
		if m == 0 || m > 1<<31-1 {
			t.Fatalf("metric %d", m)
		}
		seen[m]++
	}
	if len(seen) < 1<<16-10 {
		t.Errorf("65536 subnets have %d metrics", len(seen))
	}
}

func TestContainerMTU(t *testing.T) {
	for _, c := range []struct {
		overlay, underlay int
		v6                bool
		want              int
	}{
		{0, 1500, false, 1450}, {0, 1500, true, 1430}, {1420, 1500, false, 1420}, {1420, 9000, true, 1420}, {0, 9000, false, 8950},
	} {
		if got := ContainerMTU(c.overlay, c.underlay, c.v6); got != c.want {
			t.Errorf("%v: %d", c, got)
		}
	}
}

func TestDiff(t *testing.T) {
	subnet := netip.MustParsePrefix("9.0.1.0/24")
	a, b := netip.MustParseAddr("44.128.0.1"), netip.MustParseAddr("44.128.0.2")
	m, n := mac("70:b3:d5:80:00:01"), mac("70:b3:d5:80:00:02")
	one := Peers{
		Routes: map[netip.Prefix]Route{subnet: {a, 7}},
		Neighs: map[netip.Addr]network.MAC{a: m},
		FDB:    map[network.MAC]netip.Addr{m: a},
	}
	for _, c := range []struct {
		name       string
		want, have Peers
		text       string
	}{
		{"nothing", NewPeers(), Peers{}, ""},
		{"the same", one, one, ""},
		{"add", one, NewPeers(), "set neighbour 44.128.0.1 lladdr 70:b3:d5:80:00:01\nset forwarding entry 70:b3:d5:80:00:01 dst 44.128.0.1\nset route 9.0.1.0/24 via 44.128.0.1 metric 7"},
		{"remove", NewPeers(), one, "delete route 9.0.1.0/24 via 44.128.0.1 metric 7\ndelete forwarding entry 70:b3:d5:80:00:01 dst 44.128.0.1\ndelete neighbour 44.128.0.1 lladdr 70:b3:d5:80:00:01"},
		{
			"replace",
			Peers{Routes: map[netip.Prefix]Route{subnet: {b, 7}}, Neighs: map[netip.Addr]network.MAC{a: n}, FDB: map[network.MAC]netip.Addr{m: b}},
			one,
			"set neighbour 44.128.0.1 lladdr 70:b3:d5:80:00:02\nset forwarding entry 70:b3:d5:80:00:01 dst 44.128.0.2\nset route 9.0.1.0/24 via 44.128.0.2 metric 7",
		},
		{"other metric", Peers{Routes: map[netip.Prefix]Route{subnet: {a, 8}}}, Peers{Routes: one.Routes}, "set route 9.0.1.0/24 via 44.128.0.1 metric 8\ndelete route 9.0.1.0/24 via 44.128.0.1 metric 7"},
	} {
		got := Diff(c.want, c.have)
		if got.String() != c.text {
			t.Errorf("%s:\n%s", c.name, got)
		}
		if got.Empty() != (c.text == "") || got.Sets()+got.Deletes() != len(got.Lines()) {
			t.Errorf("%s: %d sets, %d deletes, empty %v", c.name, got.Sets(), got.Deletes(), got.Empty())
		}
	}
}

// table is what a kernel does with changes: routes are keyed by destination
// and metric, all sets come before all deletions, and a deletion is exact.
type table struct {
	routes map[RouteEntry]bool
	neighs map[netip.Addr]network.MAC
	fdb    map[network.MAC]netip.Addr
}

func (k *table) apply(c Changes) {
	for _, e := range c.SetRoutes {
		maps.DeleteFunc(k.routes, func(r RouteEntry, _ bool) bool { return r.Dst == e.Dst && r.Metric == e.Metric })
		k.routes[e] = true
	}
	for _, e := range c.SetNeighs {
		k.neighs[e.IP] = e.MAC
	}
	for _, e := range c.SetFDB {
		k.fdb[e.MAC] = e.Dst
	}
	for _, e := range c.DelRoutes {
		delete(k.routes, e)
	}
	for _, e := range c.DelNeighs {
		delete(k.neighs, e.IP)
	}
	for _, e := range c.DelFDB {
		delete(k.fdb, e.MAC)
	}
}

// TestDiffLeads applies random differences one after the other; each leads to
// exactly what is wanted, and then there is none left.
func TestDiffLeads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &table{map[RouteEntry]bool{}, map[netip.Addr]network.MAC{}, map[network.MAC]netip.Addr{}}
		have := NewPeers()
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			want := peers().Draw(t, "want")
			c := Diff(want, have)
			k.apply(c)
			got := Peers{Routes: map[netip.Prefix]Route{}, Neighs: k.neighs, FDB: k.fdb}
			for r := range k.routes {
				if _, twice := got.Routes[r.Dst]; twice {
					t.Fatalf("two routes to %s after\n%s", r.Dst, c)
				}
				got.Routes[r.Dst] = r.Route
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("got\n%s\nwant\n%s\nby\n%s", got, want, c)
			}
			if left := Diff(want, got); !left.Empty() {
				t.Fatalf("left:\n%s", left)
			}
			have = want
		}
	})
}

func peers() *rapid.Generator[Peers] {
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		return netip.AddrFrom4([4]byte{44, 128, 0, rapid.ByteRange(1, 4).Draw(t, "addr")})
	})
	hw := rapid.Custom(func(t *rapid.T) network.MAC {
		return network.MAC{5: rapid.ByteRange(1, 4).Draw(t, "mac")}
	})
	subnet := rapid.Custom(func(t *rapid.T) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{9, 0, rapid.ByteRange(1, 4).Draw(t, "subnet"), 0}), 24)
	})
	route := rapid.Custom(func(t *rapid.T) Route {
		return Route{Gateway: addr.Draw(t, "gateway"), Metric: rapid.Uint32Range(1, 2).Draw(t, "metric")}
	})
	return rapid.Custom(func(t *rapid.T) Peers {
		return Peers{
			Routes: rapid.MapOf(subnet, route).Draw(t, "routes"),
			Neighs: rapid.MapOf(addr, hw).Draw(t, "neighs"),
			FDB:    rapid.MapOf(hw, addr).Draw(t, "fdb"),
		}
	})
}
