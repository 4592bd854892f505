package docker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/network"
)

// TestTraffic sends real packets to and from a container on an overlay's
// Docker network, past Docker's own rules and package firewall's.
func TestTraffic(t *testing.T) {
	e := startEngine(t, "") // with Docker's own bridge, as most hosts have it
	e.load()
	ctx := context.Background()
	rules := firewall.ConfigOf(network.Network{
		VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"),
		Overlays:   []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24}},
	})
	host := e.namespace("ns/net")
	defer host.Close()
	apply := func() (repairs []string) {
		inside(t, host, func() (err error) {
			repairs, err = firewall.New().Apply(ctx, rules)
			return err
		})
		return repairs
	}

	e.ensure(net4(), "Docker network dcos was missing")
	stop := e.run("web", "dcos", 80)
	running, err := e.client.ContainerInspect(ctx, "web", client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	address := running.Container.NetworkSettings.Networks["dcos"].IPAddress.String()
	box := e.namespace(fmt.Sprintf("root/proc/%d/ns/net", running.Container.State.Pid))
	defer box.Close()

	outside, peer := newNamespace(t), newNamespace(t)
	defer outside.Close()
	defer peer.Close()
	wire(t, host, outside, "up0", "192.0.2.1/24", "192.0.2.2/24", "")
	wire(t, host, peer, "vtep1024", "44.128.0.1/20", "44.128.0.2/20", "9.0.1.0/24")

	apply()
	for _, tt := range []struct {
		name             string
		from, to         netns.NsHandle
		dial, serve, see string
	}{
		{"container to the outside", box, outside, "192.0.2.2:80", "192.0.2.2:80", "192.0.2.1"},
		{"container to another agent", box, peer, "44.128.0.2:80", "44.128.0.2:80", address},
		{"another agent to container", peer, box, address + ":81", address + ":81", "44.128.0.2"},
		{"outside to a published port", outside, box, "192.0.2.1:80", address + ":80", "192.0.2.2"},
	} {
		if from := connect(t, tt.from, tt.to, tt.dial, tt.serve); from != tt.see {
			t.Errorf("%s: the connection came from %q, want %s", tt.name, from, tt.see)
		}
	}

	// A restarted Engine puts its chains back on top, and ours are among them.
	e.stop()
	e.start()
	if repairs := apply(); len(repairs) != 0 {
		t.Errorf("after Docker's restart Apply repaired %q", repairs)
	}
	// A host whose rules were flushed: ours come first, Docker's later.
	inside(t, host, func() error { return firewall.New().Remove(ctx) })
	e.stop()
	e.flush(host)
	apply()
	e.start()
	repairs := apply()
	const want = "iptables filter: the jump to DCOS-OVERLAY-FORWARD was in FORWARD and belongs in DOCKER-USER"
	if len(repairs) != 1 || repairs[0] != want {
		t.Errorf("repairs are %q, want %q", repairs, want)
	}
	stop()
	e.remove("dcos")
}

// namespace opens a namespace of the Engine's process 1.
func (e *engine) namespace(path string) netns.NsHandle {
	e.t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", e.unshare))
	if err != nil {
		e.t.Fatal(err)
	}
	ns, err := netns.GetFromPath("/proc/" + strings.TrimSpace(string(children)) + "/" + path)
	if err != nil {
		e.t.Fatal(err)
	}
	return ns
}

// inside runs f in a network namespace, on a thread that ends with it.
func inside(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		done <- func() error {
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

func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	var ns netns.NsHandle
	inside(t, here, func() (err error) {
		ns, err = netns.New()
		return err
	})
	return ns
}

// wire connects the device called name in host with eth0 in other, which
// reaches route, if any, through host.
func wire(t *testing.T, host, other netns.NsHandle, name, hostAddr, otherAddr, route string) {
	t.Helper()
	h, err := netlink.NewHandleAt(host)
	must(t, err)
	defer h.Close()
	must(t, h.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(other),
	}))
	o, err := netlink.NewHandleAt(other)
	must(t, err)
	defer o.Close()
	for _, side := range []struct {
		h             *netlink.Handle
		name, address string
	}{{h, name, hostAddr}, {o, "eth0", otherAddr}} {
		link, err := side.h.LinkByName(side.name)
		must(t, err)
		addr, err := netlink.ParseAddr(side.address)
		must(t, err)
		must(t, side.h.AddrAdd(link, addr))
		must(t, side.h.LinkSetUp(link))
	}
	if route == "" {
		return
	}
	_, dst, err := net.ParseCIDR(route)
	must(t, err)
	gw, _, err := net.ParseCIDR(hostAddr)
	must(t, err)
	must(t, o.RouteAdd(&netlink.Route{Dst: dst, Gw: gw}))
}

// connect dials in one namespace, serves in another, and returns the address
// that the server sees.
func connect(t *testing.T, from, to netns.NsHandle, dial, serve string) string {
	t.Helper()
	var l net.Listener
	inside(t, to, func() (err error) {
		l, err = net.Listen("tcp", serve)
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
	inside(t, from, func() error {
		conn, err := net.DialTimeout("tcp", dial, 30*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return <-seen
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
