package kernel

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/netnstest"
)

func TestVTEPCreate(t *testing.T) {
	k := newKernel(t)
	made := ensureVTEP(t, k, sampleVTEP())
	contains(t, made, "vtep1024: created")
	lacks(t, made, "MAC", "MTU") // they are right from the start

	contains(t, ip(t, "-d link show vtep1024"),
		"vxlan id 1024 local 192.0.2.1", "dstport 64000", "nolearning", "addrgenmode none",
		"link/ether 70:b3:d5:80:00:01", "mtu 1450", "UP,LOWER_UP")
	contains(t, ip(t, "addr show vtep1024"), "inet 44.128.0.1/16 ", "inet6 fd01:a::1/64 scope global nodad")
	lacks(t, ip(t, "addr show vtep1024"), "fe80", "tentative")
	contains(t, ip(t, "route"), "44.128.0.0/16 dev vtep1024 proto kernel scope link src 44.128.0.1")
	contains(t, ip(t, "-6 route"), "fd01:a::/64 dev vtep1024 proto kernel metric 256")

	if again := ensureVTEP(t, k, sampleVTEP()); again != "" {
		t.Errorf("a second time it repaired: %s", again)
	}
}

func TestVTEPOverIPv6(t *testing.T) {
	k := newKernel(t)
	v := sampleVTEP()
	v.Local = netip.MustParseAddr("2001:db8::1")
	ensureVTEP(t, k, v)
	contains(t, ip(t, "-d link show vtep1024"), "vxlan id 1024 local 2001:db8::1")
	if again := ensureVTEP(t, k, v); again != "" {
		t.Errorf("a second time it repaired: %s", again)
	}
}

// TestVTEPRepair breaks a VTEP in one way each. Some breakages can be mended
// in place, others take a new device.
func TestVTEPRepair(t *testing.T) {
	for _, c := range []struct {
		name, breakage, repair string
		keeps                  bool
	}{
		{"mac", "link set vtep1024 address 02:00:00:00:00:01", "MAC 02:00:00:00:00:01 set to 70:b3:d5:80:00:01", true},
		{"mtu", "link set vtep1024 mtu 1300", "MTU 1300 set to 1450", true},
		{"mtu below IPv6's least", "link set vtep1024 mtu 1000", "MTU 1000 set to 1450", true},
		{"down", "link set vtep1024 down", "vtep1024: set up", true},
		{"IPv4 address removed", "addr del 44.128.0.1/16 dev vtep1024", "added address 44.128.0.1/16", true},
		{"IPv6 address removed", "addr del fd01:a::1/64 dev vtep1024", "added address fd01:a::1/64", true},
		{"foreign address", "addr add 10.1.1.1/24 dev vtep1024", "removed address 10.1.1.1/24", true},
		{"foreign address in the subnet", "addr add 44.128.0.9/16 dev vtep1024", "removed address 44.128.0.9/16", true},
		{"secondary to a foreign address", "addr flush dev vtep1024; addr add 44.128.0.9/16 dev vtep1024; addr add 44.128.0.1/16 dev vtep1024; addr add fd01:a::1/64 dev vtep1024 nodad", "removed address 44.128.0.9/16", true},
		{"second length", "addr add 44.128.0.1/24 dev vtep1024", "removed address 44.128.0.1/24", true},
		{"link-local address", "addr add fe80::1/64 dev vtep1024", "removed address fe80::1/64", true},
		{"IPv4 prefix route", "route del 44.128.0.0/16 dev vtep1024", "added route 44.128.0.0/16", true},
		{"IPv6 prefix route", "-6 route del fd01:a::/64 dev vtep1024", "added route fd01:a::/64", true},
		{"deleted", "link del vtep1024", "vtep1024: created", false},
		{"VNI", "link add vtep1024 type vxlan id 7 dstport 64000 local 192.0.2.1 nolearning", "it has VNI 7, not 1024", false},
		{"port", "link add vtep1024 type vxlan id 1024 dstport 4789 local 192.0.2.1 nolearning", "it has port 4789, not 64000", false},
		{"local", "link add vtep1024 type vxlan id 1024 dstport 64000 local 192.0.2.9 nolearning", "it sends from 192.0.2.9, not 192.0.2.1", false},
		{"no local", "link add vtep1024 type vxlan id 1024 dstport 64000 nolearning", "not 192.0.2.1", false},
		{"learning", "link add vtep1024 type vxlan id 1024 dstport 64000 local 192.0.2.1 learning", "it learns addresses", false},
		{"remote", "link add vtep1024 type vxlan id 1024 dstport 64000 local 192.0.2.1 nolearning remote 192.0.2.5", "it sends to 192.0.2.5 by default", false},
		{"external", "link add vtep1024 type vxlan external dstport 64000 local 192.0.2.1 nolearning", "it is externally controlled", false},
		{"bound", "link add vtep1024 type vxlan id 1024 dstport 64000 local 192.0.2.1 nolearning dev lo", "it is bound to one device", false},
		{"kind", "link add vtep1024 type bridge", "it is of kind bridge, not vxlan", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKernel(t)
			ensureVTEP(t, k, sampleVTEP())
			before := link(t, "vtep1024").Attrs().Index
			if !c.keeps && c.name != "deleted" {
				ip(t, "link del vtep1024")
			}
			for args := range strings.SplitSeq(c.breakage, "; ") {
				ip(t, args)
			}
			contains(t, ensureVTEP(t, k, sampleVTEP()), c.repair)
			if after := link(t, "vtep1024").Attrs().Index; (after == before) != c.keeps {
				t.Errorf("device index was %d and is %d", before, after)
			}
			if again := ensureVTEP(t, k, sampleVTEP()); again != "" {
				t.Errorf("still to repair: %s", again)
			}
			contains(t, ip(t, "route"), "44.128.0.0/16 dev vtep1024 proto kernel scope link src 44.128.0.1")
			contains(t, ip(t, "-6 route"), "fd01:a::/64 dev vtep1024 proto kernel metric 256")
		})
	}
}

func TestVTEPAdopt(t *testing.T) {
	k := newKernel(t)
	ip(t, "link add vtep1024 address 70:b3:d5:80:00:01 mtu 1450 type vxlan id 1024 dstport 64000 local 192.0.2.1 nolearning")
	before := link(t, "vtep1024").Attrs().Index
	ensureVTEP(t, k, sampleVTEP())
	if after := link(t, "vtep1024").Attrs().Index; after != before {
		t.Error("a device that fits was made anew")
	}
}

func TestVTEPTxOffload(t *testing.T) {
	k := newKernel(t)
	ensureVTEP(t, k, sampleVTEP())
	on := ethtoolValue{cmd: ethtoolGetTxChecksum}
	if err := ethtool(k.conn, "vtep1024", &on); err != nil || on.data != 1 {
		t.Fatalf("tx checksum offload of a new device: %v, %v", on.data, err)
	}
	v := sampleVTEP()
	v.TxOffload = false
	contains(t, ensureVTEP(t, k, v), "tx checksum offload turned off")
	off := ethtoolValue{cmd: ethtoolGetTxChecksum}
	if err := ethtool(k.conn, "vtep1024", &off); err != nil || off.data != 0 {
		t.Fatalf("tx checksum offload after turning it off: %v, %v", off.data, err)
	}
	if again := ensureVTEP(t, k, v); again != "" {
		t.Errorf("a second time it repaired: %s", again)
	}
}

func TestVTEPPortTaken(t *testing.T) {
	for name, other := range map[string]string{
		"same VNI":              "link add flannel.1 type vxlan id 1024 dstport 64000 local 192.0.2.1 nolearning",
		"other VNI, other kind": "link add flannel.1 type vxlan dstport 64000 local 192.0.2.1 nolearning gpe external",
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t)
			ip(t, other)
			ip(t, "link set flannel.1 up")
			_, err := k.EnsureVTEP(context.Background(), sampleVTEP())
			if err == nil {
				t.Fatal("two devices have one port")
			}
			contains(t, err.Error(), "UDP port 64000 is taken by the VXLAN device flannel.1", "ip link delete flannel.1")
		})
	}
}

func TestVTEPPortTakenBySocket(t *testing.T) {
	k := newKernel(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 64000}); err != nil {
		t.Fatal(err)
	}
	_, err = k.EnsureVTEP(context.Background(), sampleVTEP())
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	contains(t, err.Error(), "set vtep1024 up", "UDP port 64000 is taken by another program")
}

// TestVTEPElsewhere calls from a thread in another namespace.
func TestVTEPElsewhere(t *testing.T) {
	k := newKernel(t)
	netnstest.Enter(t)
	ensureVTEP(t, k, sampleVTEP())
	ensureBridge(t, k, sampleBridge())
	if links, err := netlink.LinkList(); err != nil || len(links) != 1 && links[0].Attrs().Name != "lo" {
		t.Errorf("this namespace has %v, %v", links, err)
	}
	if repairs, err := k.EnsureForwarding(context.Background(), true, true); err != nil || len(repairs) == 0 {
		t.Errorf("EnsureForwarding: %v, %v", repairs, err)
	}
	contains(t, command(t, "cat /proc/sys/net/ipv6/conf/all/forwarding"), "0")
}

func sampleBridge() dataplane.Bridge {
	return dataplane.Bridge{
		Name: "m-dcos", MAC: mac("0a:58:09:00:00:01"), MTU: 1400,
		Addrs: prefixes("9.0.0.1/25", "fd01:b::1/81"),
	}
}
