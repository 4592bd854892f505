package routes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/netnstest"
	"github.com/dcos/dcos-overlay/internal/network"
)

func ours(device string) bool { return device == "m-dcos" || device == "vtep1024" }

// text is what Own answers, in short.
func text(t *testing.T) string {
	t.Helper()
	own, more, err := Own(ours)
	if err != nil || more {
		t.Fatalf("more: %v, %v", more, err)
	}
	var out []string
	for _, r := range own {
		out = append(out, r.To.String()+by(r.Device))
	}
	return strings.Join(out, ", ")
}

func TestOwn(t *testing.T) {
	netnstest.Enter(t)
	if got := text(t); got != "" {
		t.Errorf("a new namespace has %s", got)
	}
	for _, line := range []string{
		"ip link add eth0 type veth peer name wire", "ip link set eth0 up", "ip link set wire up",
		"ip addr add 10.0.0.1/24 dev eth0", "ip addr add fd00:1::1/64 dev eth0 nodad",
		"ip route add default via 10.0.0.254", "ip -6 route add default via fd00:1::fe",
		"ip route add 10.20.0.0/16 via 10.0.0.253", "ip route add 10.20.5.0/24 via 10.0.0.252",
		"ip route add 10.20.0.0/16 via 10.0.0.252 metric 7",
		"ip route add 169.254.169.254/32 dev eth0", "ip route add 224.0.0.0/4 dev eth0",
		"ip route add 10.99.0.0/16 via 10.0.0.253 table 99", "ip route add blackhole 10.98.0.0/16",
		"ip route add 10.21.0.0/16 nexthop via 10.0.0.253 nexthop via 10.0.0.252",
		"ip link add m-dcos type bridge", "ip link set m-dcos up", "ip addr add 9.0.1.1/25 dev m-dcos",
		"ip link add vtep1024 type bridge", "ip link set vtep1024 up", "ip addr add 44.128.0.1/20 dev vtep1024",
		"ip route add 9.0.2.0/24 via 44.128.0.2 dev vtep1024 proto 44",
		"ip route add 9.0.3.0/24 via 10.0.0.253 proto 44",
		"ip link add m-other type bridge", "ip link set m-other up", "ip addr add 10.7.0.1/24 dev m-other",
	} {
		netnstest.Run(t, line)
	}
	const want = "10.0.0.0/24 dev eth0, 10.7.0.0/24 dev m-other, 10.20.0.0/16 dev eth0, 10.21.0.0/16, fd00:1::/64 dev eth0"
	if got := text(t); got != want {
		t.Errorf("the host's own routes are\n%s, want\n%s", got, want)
	}
}

// TestManyRoutes: of more than can be reported the widest are.
func TestManyRoutes(t *testing.T) {
	netnstest.Enter(t)
	netnstest.Run(t, "ip link add eth0 type veth peer name wire")
	netnstest.Run(t, "ip link set eth0 up")
	var batch strings.Builder
	for i := range api.MaxHostRoutes + 10 {
		fmt.Fprintf(&batch, "route add 10.%d.%d.0/25 dev eth0\n", i/200, i%200)
	}
	batch.WriteString("route add 192.168.0.0/16 dev eth0\n")
	netnstest.Input(t, batch.String(), "ip -batch -")
	own, more, err := Own(ours)
	if err != nil || !more || len(own) != api.MaxHostRoutes {
		t.Fatalf("there are %d, more: %v, %v", len(own), more, err)
	}
	if last := own[len(own)-1].To; last != netip.MustParsePrefix("192.168.0.0/16") {
		t.Errorf("the widest is not there; the last is %s", last)
	}
}

func TestClashes(t *testing.T) {
	n := &network.Network{Overlays: []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8")}}}
	own := []Route{{To: netip.MustParsePrefix("9.5.0.0/16"), Device: "eth1"}, {To: netip.MustParsePrefix("10.0.0.0/8")}}
	got := Clashes(own, n)
	if len(got) != 1 || !strings.HasPrefix(got[0], "the route 9.5.0.0/16 dev eth1 of this host overlaps overlay dcos (9.0.0.0/8): ") {
		t.Errorf("the clashes are %q", got)
	}
}
