package docker

import (
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/network"
)

// TestTraffic sends real packets to and from a container on an overlay's
// Docker network, past Docker's own rules and package firewall's.
func TestTraffic(t *testing.T) {
	e := startEngine(t, "--bridge=docker0") // Docker's own, as most hosts have it
	ctx := t.Context()
	rules := firewall.ConfigOf(network.Network{
		VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"),
		Overlays:   []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24}},
	})
	apply := func() (repairs []string) {
		t.Helper()
		inside(t, e.host, func() (err error) {
			repairs, err = firewall.New().Apply(ctx, rules)
			return err
		})
		return repairs
	}

	e.ensure(net4(), "Docker network dcos was missing")
	box := e.run("web", "dcos", "--publish=80:80")
	outside := e.lab.Outside
	peer, err := e.lab.AddHost(ctx, "b", netip.MustParseAddr("172.17.0.3"))
	must(t, err)
	vtep, peerVTEP := netip.MustParsePrefix("44.128.0.1/20"), netip.MustParsePrefix("44.128.0.2/20")
	addVTEP(t, e.host, vtep, peer.Addr)
	addVTEP(t, peer, peerVTEP, e.host.Addr)
	_, err = peer.Run(ctx, "ip", "route", "add", "9.0.1.0/24", "via", vtep.Addr().String())
	must(t, err)
	for _, s := range []struct {
		place *lab.Place
		port  uint16
	}{{&outside.Place, 80}, {&peer.Place, 80}, {&box.Place, 80}, {&box.Place, 81}} {
		_, err := s.place.Serve(ctx, s.port)
		must(t, err)
	}

	apply()
	for _, tt := range []struct {
		name string
		from *lab.Place
		dial netip.AddrPort
		see  netip.Addr
	}{
		{"container to the outside", &box.Place, netip.AddrPortFrom(lab.World4, 80), e.host.Addr},
		{"container to another agent", &box.Place, netip.AddrPortFrom(peerVTEP.Addr(), 80), box.IP4},
		{"another agent to container", &peer.Place, netip.AddrPortFrom(box.IP4, 81), peerVTEP.Addr()},
		{"outside to a published port", &outside.Place, netip.AddrPortFrom(e.host.Addr, 80), lab.Router4},
	} {
		seen, err := tt.from.Dial(ctx, tt.dial)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if seen.Addr() != tt.see {
			t.Errorf("%s: the connection came from %s, want %s", tt.name, seen, tt.see)
		}
	}

	// A restarted Engine puts its chains back on top, and ours are among them.
	e.stop()
	e.start()
	if repairs := apply(); len(repairs) != 0 {
		t.Errorf("after Docker's restart Apply repaired %q", repairs)
	}
	// A host whose rules were flushed: ours come first, Docker's later.
	inside(t, e.host, func() error { return firewall.New().Remove(ctx) })
	e.stop()
	for _, line := range []string{"-F", "-X", "-t nat -F", "-t nat -X"} {
		_, err := e.host.Run(ctx, append([]string{"iptables"}, strings.Fields(line)...)...)
		must(t, err)
	}
	apply()
	e.start()
	want := []string{"iptables filter: the jump to DCOS-OVERLAY-FORWARD was in FORWARD and belongs in DOCKER-USER"}
	if e.nftables() {
		want = nil // such an Engine has no DOCKER-USER
	}
	if repairs := apply(); !slices.Equal(repairs, want) {
		t.Errorf("repairs are %q, want %q", repairs, want)
	}
	e.end(box)
	e.remove("dcos")
}

// addVTEP gives a host an overlay's VXLAN device, with one peer.
func addVTEP(t *testing.T, h *lab.Host, addr netip.Prefix, peer netip.Addr) {
	t.Helper()
	_, err := h.Run(t.Context(), "sh", "-ec", `
		ip link add "$0" type vxlan id 1024 dstport 64000 local "$1" remote "$2"
		ip addr add "$3" dev "$0"
		ip link set "$0" up`,
		network.VTEPName, h.Addr.String(), peer.String(), addr.String())
	must(t, err)
}

// inside runs f in a host's network.
func inside(t *testing.T, h *lab.Host, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() { done <- enter(h, f) }()
	must(t, <-done)
}

// enter runs f in a host's network. It must be called in a goroutine of its
// own: a thread that can't return ends with it.
func enter(h *lab.Host, f func() error) error {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		return err
	}
	defer own.Close()
	ns, err := netns.GetFromPid(h.PID())
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return err
	}
	err = f()
	if back := netns.Set(own); back != nil {
		return back
	}
	runtime.UnlockOSThread()
	return err
}
