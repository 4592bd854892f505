package firewall

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/dcos/dcos-overlay/internal/network"
)

// pair are two overlays of both families: dcos, which the container of a site
// is on, and both.
func pair(isolated bool) network.Network {
	n := testNetwork()
	n.Overlays = []network.Overlay{
		{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24,
			Subnet6: netip.MustParsePrefix("fd01:b::/64"), Prefix6: 80, Isolated: isolated},
		{Name: "both", Subnet: netip.MustParsePrefix("10.32.0.0/16"), Prefix: 24,
			Subnet6: netip.MustParsePrefix("fd01:c::/64"), Prefix6: 80},
	}
	return n
}

// strangers are the addresses of the other overlay in one family.
type strangers struct {
	bridge, container string
	// peer is on the other agent, and forged an address of dcos that the
	// container of the other overlay takes.
	peer, peerSubnet, forged string
}

var strangersOf = map[bool]strangers{
	false: {bridge: "10.32.1.1/25", container: "10.32.1.2/25", peer: "10.32.2.2/32", peerSubnet: "10.32.2.0/24", forged: "9.0.3.3/32"},
	true: {bridge: "fd01:c::1:0:0:1/81", container: "fd01:c::1:0:0:2/81", peer: "fd01:c::2:0:0:2/128",
		peerSubnet: "fd01:c::2:0:0:0/80", forged: "fd01:b::3:0:0:3/128"},
}

// addStranger puts a container of the overlay both beside the site's own, and
// one behind the other agent.
func (s site) addStranger(t *testing.T) netns.NsHandle {
	t.Helper()
	var c netns.NsHandle
	inside(t, s.agent, func() (err error) {
		c, err = netns.New()
		return err
	})
	t.Cleanup(func() { c.Close() })
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "m-both"}}))
	s.wire(t, "veth1", c)
	must(t, netlink.LinkSetMaster(byName(t, nil, "veth1"), byName(t, nil, "m-both")))
	must(t, netlink.LinkSetUp(byName(t, nil, "m-both")))
	for _, a := range bothFamilies {
		o := strangersOf[a.family.v6]
		address(t, s.agent, "m-both", o.bridge)
		address(t, c, "eth0", o.container)
		address(t, c, "lo", o.forged)
		address(t, s.peer, "lo", o.peer)
		zero := "0.0.0.0/0"
		if a.family.v6 {
			zero = "::/0"
		}
		route(t, c, "eth0", zero, ip(o.bridge))
		route(t, s.agent, "vtep1024", o.peerSubnet, ip(a.peerVTEP))
		// The other agent's container of dcos goes out with its own address.
		subnet := netip.MustParsePrefix(o.container).Masked()
		route(t, s.peer, "eth0", subnet.String(), ip(a.vtep))
	}
	return c
}

// TestIsolation sends real packets between two overlays, one of which is
// isolated and opened again, past rules in filter that accept all.
func TestIsolation(t *testing.T) {
	eachFlavour(t, func(t *testing.T, h host) {
		s := newSite(t)
		other := s.addStranger(t)
		for _, a := range bothFamilies {
			h.do(a.family.program + " -A FORWARD -j ACCEPT")
			h.do(a.family.program + " -t nat -A PREROUTING -d " + ip(a.uplink) + " -p tcp --dport 80 -j DNAT --to-destination " +
				net.JoinHostPort(ip(a.container), "80"))
		}
		h.apply(ConfigOf(pair(false)))
		// A new link takes a while to speak IPv6; a connection is patient.
		for _, a := range bothFamilies {
			for _, way := range [][2]netns.NsHandle{{s.container, s.peer}, {other, s.peer}} {
				_, err := s.connect(t, way[0], way[1], ip(a.peer), ip(a.peer))
				must(t, err)
			}
		}
		for _, isolated := range []bool{false, true, false} {
			h.apply(ConfigOf(pair(isolated)))
			for _, a := range bothFamilies {
				o := strangersOf[a.family.v6]
				for _, tt := range []struct {
					name     string
					from, to netns.NsHandle
					source   string
					addr     string
					apart    bool // cut when isolated
				}{
					{"to the same overlay on the other agent", s.container, s.peer, "", ip(a.peer), false},
					{"from the same overlay on the other agent", s.peer, s.container, ip(a.peer), ip(a.container), false},
					{"from the other agent", s.peer, s.container, ip(a.peerVTEP), ip(a.container), false},
					{"to the outside", s.container, s.outside, "", ip(a.outside), false},
					{"the other overlay to its own", other, s.peer, "", ip(o.peer), false},
					{"to the other overlay", s.container, other, "", ip(o.container), true},
					{"to the other overlay on the other agent", s.container, s.peer, "", ip(o.peer), true},
					{"from the other overlay", other, s.container, "", ip(a.container), true},
					{"from the other overlay on the other agent", s.peer, s.container, ip(o.peer), ip(a.container), true},
					{"from the other overlay with a forged address", other, s.container, ip(o.forged), ip(a.container), true},
				} {
					arrived := datagram(t, tt.from, tt.to, tt.source, tt.addr)
					if want := !isolated || !tt.apart; arrived != want {
						t.Errorf("%s, isolated %v: a datagram %s: arrived is %v", a.family.program, isolated, tt.name, arrived)
					}
				}
				if _, err := s.connect(t, other, s.container, ip(a.uplink), ip(a.container)); err != nil {
					t.Errorf("%s, isolated %v: a mapped port is not reached from the other overlay: %v", a.family.program, isolated, err)
				}
			}
		}
		if strings.Contains(h.rules(), chainIsolate) {
			t.Errorf("chains of isolation stay when no overlay is isolated:\n%s", h.rules())
		}
	})
}

// datagram tells whether one that is sent from an address in one namespace
// arrives at an address in another.
func datagram(t *testing.T, from, to netns.NsHandle, source, dst string) bool {
	t.Helper()
	var in net.PacketConn
	inside(t, to, func() (err error) {
		in, err = net.ListenPacket("udp", net.JoinHostPort(dst, "7"))
		return err
	})
	defer in.Close()
	inside(t, from, func() error {
		out, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}).Dial("udp", net.JoinHostPort(dst, "7"))
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = out.Write([]byte("here"))
		return err
	})
	// On one machine it takes microseconds; only what is cut waits that long.
	must(t, in.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
	_, _, err := in.ReadFrom(make([]byte, 16))
	return err == nil
}

// TestIsolationBesideTheRulesOfOthers: a rule in mangle that accepts would let
// everything past ours, and a table that iptables cannot show keeps no other
// from being written.
func TestIsolationBesideTheRulesOfOthers(t *testing.T) {
	eachFlavour(t, func(t *testing.T, h host) {
		h.do("iptables -t mangle -A FORWARD -p tcp -j ACCEPT")
		h.do("iptables -t mangle -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu")
		h.apply(ConfigOf(pair(true)))
		h.do("iptables -t mangle -D FORWARD -j " + chainIsolate)
		h.do("iptables -t mangle -A FORWARD -j " + chainIsolate)
		h.apply(ConfigOf(pair(true)))
		want := "-A FORWARD -j " + chainIsolate + "\n-A FORWARD -p tcp -j ACCEPT\n"
		if got := h.rules(); !strings.Contains(got, want) {
			t.Errorf("ours is not first:\n%s", got)
		}
	})
}

func TestAHiddenMangleMattersOnlyToIsolation(t *testing.T) {
	const text = "# Table `mangle' is incompatible, use 'nft' tool.\n*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
	f := fakePrograms(t, map[string]string{
		"iptables-save":    "printf '%s' \"" + strings.ReplaceAll(text, "`", "\\`") + "\"",
		"iptables-restore": "cat >/dev/null",
		"ip6tables-save":   emptySave, "ip6tables-restore": "cat >/dev/null",
	})
	if _, err := f.Apply(t.Context(), ConfigOf(pair(false))); err != nil {
		t.Errorf("without isolation: %v", err)
	}
	done, err := f.Apply(t.Context(), ConfigOf(pair(true)))
	if err == nil || !strings.Contains(err.Error(), "table mangle has rules that iptables cannot show") {
		t.Errorf("with isolation: %v", err)
	}
	if all := strings.Join(done, "\n"); !strings.Contains(all, "iptables filter: chain DCOS-OVERLAY-FORWARD was missing") {
		t.Errorf("the other tables were not written: %s", all)
	}
}
