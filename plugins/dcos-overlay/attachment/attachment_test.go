package attachment

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/network"
)

// inHost runs the test's body in a fresh namespace that plays the host, with a
// bridge m-dcos in it.
func inHost(t *testing.T) (*Links, Bridge) {
	t.Helper()
	runtime.LockOSThread()
	// Never unlocked: the thread, and its namespace, end with the test.
	if _, err := netns.New(); err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "m-dcos"
	attrs.MTU = 1420
	attrs.HardwareAddr = net.HardwareAddr{0x0a, 0x58, 9, 0, 1, 1}
	br := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		t.Fatal(err)
	}
	links, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(links.Close)
	bridge, err := links.Bridge("m-dcos")
	if err != nil {
		t.Fatal(err)
	}
	return links, bridge
}

// container makes a namespace with a handle outside /var/run/netns, as Mesos
// does.
func container(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns), path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := netns.Set(host); err != nil {
		t.Fatal(err)
	}
	return path
}

func spec(path string, bridge Bridge) Attachment {
	return Attachment{
		Netns: path, IfName: "eth0", HostIfName: HostIfName("c1", "eth0"), Bridge: bridge, MTU: bridge.MTU,
		MAC: network.AddrMAC(netip.MustParseAddr("9.0.1.2")),
		Addrs: []ipam.Address{
			{Prefix: netip.MustParsePrefix("9.0.1.2/25"), Gateway: netip.MustParseAddr("9.0.1.1")},
			{Prefix: netip.MustParsePrefix("fd01:b::2/81"), Gateway: netip.MustParseAddr("fd01:b::1")},
		},
		Routes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		Spaces: []netip.Prefix{netip.MustParsePrefix("9.0.0.0/8"), netip.MustParsePrefix("fd01:b::/64")},
	}
}

// look runs f with netlink in the container.
func look(t *testing.T, path string, f func(h *netlink.Handle)) {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	f(h)
}

func TestCreateAndDelete(t *testing.T) {
	links, bridge := inHost(t)
	path := container(t)
	a := spec(path, bridge)
	routes, err := links.Create(a)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(routes, a.Routes) {
		t.Errorf("the container got routes %v", routes)
	}
	hostEnd, err := netlink.LinkByName(a.HostIfName)
	if err != nil {
		t.Fatal(err)
	}
	if attrs := hostEnd.Attrs(); attrs.MasterIndex != bridge.Index || attrs.MTU != 1420 || attrs.Flags&net.FlagUp == 0 {
		t.Errorf("the host's end is %+v", attrs)
	}
	if port, err := netlink.LinkGetProtinfo(hostEnd); err != nil || !port.Hairpin {
		t.Errorf("hairpin mode is %+v, %v", port, err)
	}
	look(t, path, func(h *netlink.Handle) {
		eth0, err := h.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if attrs := eth0.Attrs(); attrs.HardwareAddr.String() != "0a:58:09:00:01:02" || attrs.MTU != 1420 || attrs.Flags&net.FlagUp == 0 {
			t.Errorf("the container's end is %+v", attrs)
		}
		addrs, err := h.AddrList(eth0, unix.AF_UNSPEC)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range addrs {
			if a.Scope == unix.RT_SCOPE_UNIVERSE {
				got = append(got, a.IPNet.String())
				if a.Flags&unix.IFA_F_TENTATIVE != 0 {
					t.Errorf("%s is tentative: the container would wait for it", a.IPNet)
				}
			}
		}
		if strings.Join(got, " ") != "9.0.1.2/25 fd01:b::2/81" {
			t.Errorf("addresses are %v", got)
		}
	})
	for _, name := range []string{"ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"} {
		if got := sysctl(t, path, name); got != "1" {
			t.Errorf("%s is %s: who knows the address by another MAC is not told", name, got)
		}
	}
	if err := links.Delete(a.HostIfName); err != nil {
		t.Fatal(err)
	}
	if err := links.Delete(a.HostIfName); err != nil {
		t.Errorf("a second delete fails: %v", err)
	}
	look(t, path, func(h *netlink.Handle) {
		if _, err := h.LinkByName("eth0"); err == nil {
			t.Error("the container's end is still there")
		}
	})
}

func sysctl(t *testing.T, path, name string) (value string) {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = within(ns, func() error {
		data, err := os.ReadFile("/proc/sys/net/" + name)
		value = strings.TrimSpace(string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestNoBridge: what has the bridge's name and is none is named.
func TestNoBridge(t *testing.T) {
	links, bridge := inHost(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "m-veth"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	found, err := links.Bridge("m-veth")
	if err != nil || found.Index == bridge.Index {
		t.Fatalf("found %+v, %v", found, err)
	}
	a := spec(container(t), found)
	_, err = links.Create(a)
	if err == nil || !strings.Contains(err.Error(), "device m-veth is a veth, not a bridge") || links.Exist(a.HostIfName) {
		t.Errorf("got %v", err)
	}
	if _, err := links.Bridge("m-none"); err == nil || !strings.Contains(err.Error(), "find bridge m-none") {
		t.Errorf("got %v", err)
	}
}

func TestFailuresLeaveNothing(t *testing.T) {
	links, bridge := inHost(t)
	for name, tt := range map[string]struct {
		change func(*Attachment)
		says   string
	}{
		"no namespace":     {func(a *Attachment) { a.Netns = "/nowhere" }, "/nowhere"},
		"name taken":       {func(a *Attachment) { a.IfName = "lo" }, "make interface lo in the container: it is there already"},
		"address twice":    {func(a *Attachment) { a.Addrs[1] = a.Addrs[0] }, "add address 9.0.1.2/25"},
		"gateway off link": {func(a *Attachment) { a.Addrs[0].Gateway = netip.MustParseAddr("7.7.7.7") }, "add route 0.0.0.0/0"},
		"bridge gone":      {func(a *Attachment) { a.Bridge.Index = 9999 }, "make veth"},
	} {
		// No subtests: they would run on threads in another namespace.
		a := spec(container(t), bridge)
		tt.change(&a)
		_, err := links.Create(a)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %q", name, err, tt.says)
		}
		if links.Exist(a.HostIfName) {
			t.Errorf("%s: the veth is left", name)
		}
	}
}

// TestSecondInterface: where the first one is on an overlay, which leads to
// all others, the second gets its own range; else it gets them all.
func TestSecondInterface(t *testing.T) {
	links, bridge := inHost(t)
	spaces := []netip.Prefix{netip.MustParsePrefix("9.0.0.0/8"), netip.MustParsePrefix("10.64.0.0/16"), netip.MustParsePrefix("44.128.0.0/20")}
	own := spaces[1:2]
	for name, tt := range map[string]struct {
		first string
		want  []netip.Prefix
	}{
		"the first is on an overlay": {"9.0.1", own},
		"the first is not":           {"192.168.7", spaces},
	} {
		path := container(t)
		first := spec(path, bridge)
		first.HostIfName = HostIfName(name, "eth0")
		first.Addrs = []ipam.Address{{Prefix: netip.MustParsePrefix(tt.first + ".2/25"), Gateway: netip.MustParseAddr(tt.first + ".1")}}
		if _, err := links.Create(first); err != nil {
			t.Fatal(err)
		}
		second := spec(path, bridge)
		second.IfName, second.HostIfName = "eth1", HostIfName(name, "eth1")
		second.Spaces, second.Own = spaces, own
		second.Addrs = []ipam.Address{{Prefix: netip.MustParsePrefix("10.64.9.2/25"), Gateway: netip.MustParseAddr("10.64.9.1")}}
		routes, err := links.Create(second)
		if err != nil || !slices.Equal(routes, tt.want) {
			t.Errorf("%s: got %v, %v", name, routes, err)
		}
	}
}

func TestCheck(t *testing.T) {
	links, bridge := inHost(t)
	path := container(t)
	a := spec(path, bridge)
	routes, err := links.Create(a)
	if err != nil {
		t.Fatal(err)
	}
	want := Expected{Netns: path, IfName: a.IfName, HostIfName: a.HostIfName, Bridge: bridge.Name, MAC: &a.MAC, Routes: routes}
	for _, addr := range a.Addrs {
		want.Addrs = append(want.Addrs, addr.Prefix)
	}
	if err := links.Check(want); err != nil {
		t.Fatalf("right after it was made: %v", err)
	}
	if on, err := links.On(bridge.Name); err != nil || !slices.Equal(on, []string{a.HostIfName}) {
		t.Errorf("on the bridge are %q, %v", on, err)
	}
	if on, err := links.On("m-none"); err != nil || len(on) != 0 {
		t.Errorf("on a bridge that is not there are %q, %v", on, err)
	}
	other := network.MAC{2, 0, 0, 0, 0, 9}
	wrong := want
	wrong.MAC = &other
	wrong.Addrs = append(slices.Clone(want.Addrs), netip.MustParsePrefix("9.0.1.77/25"))
	wrong.Routes = append(slices.Clone(want.Routes), netip.MustParsePrefix("192.0.2.0/24"))
	err = links.Check(wrong)
	for _, says := range []string{"not " + other.String(), "no address 9.0.1.77/25", "no route to 192.0.2.0/24"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is not in %v", says, err)
		}
	}
	host, err := netlink.LinkByName(a.HostIfName)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNoMaster(host); err != nil {
		t.Fatal(err)
	}
	if err := links.Check(want); err == nil || !strings.Contains(err.Error(), "not on bridge "+bridge.Name) {
		t.Errorf("off the bridge: %v", err)
	}
	look(t, path, func(h *netlink.Handle) {
		link, err := h.LinkByName(a.IfName)
		if err == nil {
			err = h.LinkSetDown(link)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if err := links.Check(want); err == nil || !strings.Contains(err.Error(), "eth0 is not up") || !strings.Contains(err.Error(), "no route to") {
		t.Errorf("with the interface down: %v", err)
	}
	if err := links.Delete(a.HostIfName); err != nil {
		t.Fatal(err)
	}
	if err := links.Check(want); err == nil || !strings.Contains(err.Error(), "find veth "+a.HostIfName) || !strings.Contains(err.Error(), "find interface eth0") {
		t.Errorf("without the interface: %v", err)
	}
}

func TestIPv6OffInTheContainer(t *testing.T) {
	links, bridge := inHost(t)
	path := container(t)
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := within(ns, func() error { return setSysctl("net/ipv6/conf/default/disable_ipv6", "1") }); err != nil {
		t.Fatal(err)
	}
	if _, err := links.Create(spec(path, bridge)); err != nil {
		t.Errorf("an interface with IPv6 off by default: %v", err)
	}
}

func TestHostIfNameFits(t *testing.T) {
	a, b := HostIfName("c1", "eth0"), HostIfName("c1", "eth1")
	if len(a) != 15 || a == b || a != HostIfName("c1", "eth0") {
		t.Errorf("got %s and %s", a, b)
	}
}
