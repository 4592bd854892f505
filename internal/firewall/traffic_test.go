package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// site is an agent with a container on its Mesos bridge, another agent behind
// its VTEP (a veth here, for the encapsulation is no matter of the firewall)
// and a machine outside, which knows no way to the overlay.
type site struct {
	agent, container, peer, outside netns.NsHandle
}

// addresses are those of a site in one family.
type addresses struct {
	family                     family
	bridge, container          string
	vtep, peerVTEP             string
	peer                       string // on the peer, in the overlay
	peerSubnet, containerRoute string
	uplink, outside            string
}

var bothFamilies = []addresses{{
	family: families[0],
	bridge: "9.0.1.1/25", container: "9.0.1.2/25",
	vtep: "44.128.0.1/20", peerVTEP: "44.128.0.2/20", peer: "9.0.2.2/32",
	peerSubnet: "9.0.2.0/24", containerRoute: "9.0.1.0/24",
	uplink: "192.0.2.1/24", outside: "192.0.2.2/24",
}, {
	family: families[1],
	bridge: "fd01:b::1:0:0:1/81", container: "fd01:b::1:0:0:2/81",
	vtep: "fd01:a::1/64", peerVTEP: "fd01:a::2/64", peer: "fd01:b::2:0:0:2/128",
	peerSubnet: "fd01:b::2:0:0:0/80", containerRoute: "fd01:b::1:0:0:0/80",
	uplink: "2001:db8::1/64", outside: "2001:db8::2/64",
}}

// TestTraffic sends real packets through a host that drops what it forwards,
// as one with Docker does.
func TestTraffic(t *testing.T) {
	eachFlavour(t, func(t *testing.T, h host) {
		s := newSite(t)
		for _, a := range bothFamilies {
			program := a.family.program
			h.do(program + " -P FORWARD DROP")
			// Refusing rather than dropping spares the test the waiting.
			h.do(program + " -A FORWARD -j REJECT")
			h.do(program + " -t nat -A PREROUTING -d " + ip(a.uplink) + " -p tcp --dport 80 -j DNAT --to-destination " +
				net.JoinHostPort(ip(a.container), "80"))
		}
		for _, a := range bothFamilies {
			if from, err := s.connect(t, s.container, s.peer, ip(a.peer), ip(a.peer)); err == nil {
				t.Fatalf("%s: before Apply a connection came through from %s", a.family.program, from)
			}
		}
		h.apply(ConfigOf(testNetwork()))
		for _, a := range bothFamilies {
			for _, tt := range []struct {
				name             string
				from, to         netns.NsHandle
				dial, serve, see string
			}{
				{"container to the outside is masqueraded", s.container, s.outside, ip(a.outside), ip(a.outside), ip(a.uplink)},
				{"container to another agent's container is not", s.container, s.peer, ip(a.peer), ip(a.peer), ip(a.container)},
				{"container to another agent's VTEP is not", s.container, s.peer, ip(a.peerVTEP), ip(a.peerVTEP), ip(a.container)},
				{"another agent to the container", s.peer, s.container, ip(a.container), ip(a.container), ip(a.peerVTEP)},
				{"outside to a mapped port", s.outside, s.container, ip(a.uplink), ip(a.container), ip(a.outside)},
			} {
				t.Run(a.family.program+" "+tt.name, func(t *testing.T) {
					from, err := s.connect(t, tt.from, tt.to, tt.dial, tt.serve)
					if err != nil || from != tt.see {
						t.Errorf("the connection came from %q, %v; it should come from %s", from, err, tt.see)
					}
				})
			}
			if from, err := s.connect(t, s.outside, s.peer, ip(a.peerVTEP), ip(a.peerVTEP)); err == nil {
				t.Errorf("a stranger came through from %s", from)
			}
		}
	})
}

// connect dials port 80 of an address in one namespace, serves on port 80 in
// another, and returns the address that the server sees.
func (s site) connect(t *testing.T, from, to netns.NsHandle, dial, serve string) (string, error) {
	t.Helper()
	var l net.Listener
	inside(t, to, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(serve, "80"))
		return err
	})
	defer l.Close()
	seen := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		seen <- conn.RemoteAddr().(*net.TCPAddr).IP.String()
		conn.Close()
	}()
	var dialErr error
	inside(t, from, func() error {
		var conn net.Conn
		if conn, dialErr = net.DialTimeout("tcp", net.JoinHostPort(dial, "80"), 10*time.Second); dialErr == nil {
			conn.Close()
		}
		return nil
	})
	if dialErr != nil {
		return "", dialErr
	}
	return <-seen, nil
}

// inside runs f in a namespace.
func inside(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		done <- func() error {
			// Never unlocked: the thread dies with this goroutine.
			runtime.LockOSThread()
			if err := netns.Set(ns); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func newSite(t *testing.T) site {
	t.Helper()
	agent, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	s := site{agent: agent}
	for _, ns := range []*netns.NsHandle{&s.container, &s.peer, &s.outside} {
		inside(t, agent, func() (err error) {
			*ns, err = netns.New()
			return err
		})
		t.Cleanup(func() { ns.Close() })
	}

	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "m-dcos"}}))
	s.wire(t, "veth0", s.container)
	s.wire(t, "vtep1024", s.peer)
	s.wire(t, "up0", s.outside)
	must(t, netlink.LinkSetMaster(byName(t, nil, "veth0"), byName(t, nil, "m-dcos")))
	must(t, netlink.LinkSetUp(byName(t, nil, "m-dcos")))

	for _, a := range bothFamilies {
		address(t, agent, "m-dcos", a.bridge)
		address(t, agent, "vtep1024", a.vtep)
		address(t, agent, "up0", a.uplink)
		address(t, s.container, "eth0", a.container)
		address(t, s.peer, "eth0", a.peerVTEP)
		address(t, s.peer, "lo", a.peer)
		address(t, s.outside, "eth0", a.outside)
		zero := "0.0.0.0/0"
		if a.family.v6 {
			zero = "::/0"
		}
		route(t, s.container, "eth0", zero, ip(a.bridge))
		route(t, agent, "vtep1024", a.peerSubnet, ip(a.peerVTEP))
		route(t, s.peer, "eth0", a.containerRoute, ip(a.vtep))
	}
	// The stranger tries to reach the VTEPs' range through the agent.
	route(t, s.outside, "eth0", "44.128.0.0/20", "192.0.2.1")
	route(t, s.outside, "eth0", "fd01:a::/64", "2001:db8::1")
	for _, knob := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		must(t, os.WriteFile("/proc/sys/net/"+knob, []byte("1"), 0))
	}
	return s
}

// wire connects the agent's device called name with eth0 in ns.
func (s site) wire(t *testing.T, name string, ns netns.NsHandle) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns),
	}))
	must(t, netlink.LinkSetUp(byName(t, nil, name)))
	h := handle(t, ns)
	for _, link := range []string{"lo", "eth0"} {
		must(t, h.LinkSetUp(byName(t, h, link)))
	}
}

func address(t *testing.T, ns netns.NsHandle, link, cidr string) {
	t.Helper()
	addr, err := netlink.ParseAddr(cidr)
	must(t, err)
	addr.Flags = unix.IFA_F_NODAD
	h := handle(t, ns)
	must(t, h.AddrAdd(byName(t, h, link), addr))
}

func route(t *testing.T, ns netns.NsHandle, link, dst, via string) {
	t.Helper()
	_, d, err := net.ParseCIDR(dst)
	must(t, err)
	h := handle(t, ns)
	must(t, h.RouteAdd(&netlink.Route{LinkIndex: byName(t, h, link).Attrs().Index, Dst: d, Gw: net.ParseIP(via)}))
}

func handle(t *testing.T, ns netns.NsHandle) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(ns)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func byName(t *testing.T, h *netlink.Handle, name string) netlink.Link {
	t.Helper()
	if h == nil {
		h = &netlink.Handle{}
	}
	link, err := h.LinkByName(name)
	if err != nil {
		t.Fatal(fmt.Errorf("device %s: %w", name, err))
	}
	return link
}

func ip(cidr string) string { return netip.MustParsePrefix(cidr).Addr().String() }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
