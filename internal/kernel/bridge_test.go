package kernel

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/netnstest"
)

func TestBridgeCreate(t *testing.T) {
	k := newKernel(t)
	made := ensureBridge(t, k, sampleBridge())
	contains(t, made, "m-dcos: created")
	lacks(t, made, "MAC", "MTU") // they are right from the start

	contains(t, ip(t, "-d link show m-dcos"),
		"link/ether 0a:58:09:00:00:01", "mtu 1400", "BROADCAST,MULTICAST,UP",
		"stp_state 0", "vlan_filtering 0", "mcast_snooping 0", "addrgenmode none")
	addrs := ip(t, "addr show m-dcos")
	// The gateways, and the link-local address that follows from the MAC.
	contains(t, addrs, "inet 9.0.0.1/25 ", "inet6 fd01:b::1/81 scope global nodad", "inet6 fe80::858:9ff:fe00:1/64 scope link nodad")
	lacks(t, addrs, "tentative")
	contains(t, command(t, "cat /proc/sys/net/ipv6/conf/m-dcos/accept_ra"), "0")

	if again := ensureBridge(t, k, sampleBridge()); again != "" {
		t.Errorf("a second time it repaired: %s", again)
	}
}

// TestBridgeMTUStays when the last container goes.
func TestBridgeMTUStays(t *testing.T) {
	k := newKernel(t)
	ensureBridge(t, k, sampleBridge())
	ip(t, "link add dov1 mtu 1400 type veth peer name peer1")
	ip(t, "link set dov1 master m-dcos up")
	ip(t, "link del dov1")
	contains(t, ip(t, "link show m-dcos"), "mtu 1400")
}

func TestBridgeOnlyIPv4(t *testing.T) {
	k := newKernel(t)
	b := sampleBridge()
	b.Addrs = b.Addrs[:1]
	ensureBridge(t, k, b)
	lacks(t, ip(t, "addr show m-dcos"), "inet6")
}

func TestBridgeWithoutIPv6InKernel(t *testing.T) {
	k := newKernel(t)
	if _, err := ensureSysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
		t.Fatal(err)
	}
	_, err := k.EnsureBridge(context.Background(), sampleBridge())
	if err == nil {
		t.Fatal("an IPv6 address where there is no IPv6")
	}
	contains(t, err.Error(), "add address fd01:b::1/81 to m-dcos: ", "IPv6 is off", "enable_ipv6")
	b := sampleBridge()
	b.Addrs = b.Addrs[:1]
	ensureBridge(t, k, b)
}

func TestBridgeRepair(t *testing.T) {
	for _, c := range []struct{ name, breakage, repair string }{
		{"mac", "link set m-dcos address 02:00:00:00:00:01", "MAC 02:00:00:00:00:01 set to 0a:58:09:00:00:01"},
		{"mtu", "link set m-dcos mtu 1300", "MTU 1300 set to 1400"},
		{"mtu below IPv6's least", "link set m-dcos mtu 1000", "MTU 1000 set to 1400"},
		{"down", "link set m-dcos down", "m-dcos: set up"},
		{"address removed", "addr del 9.0.0.1/25 dev m-dcos", "added address 9.0.0.1/25"},
		{"former subnet", "addr add 9.0.7.1/25 dev m-dcos", "removed address 9.0.7.1/25"},
		{"link-local address removed", "addr del fe80::858:9ff:fe00:1/64 dev m-dcos", "added address fe80::858:9ff:fe00:1/64"},
		{"route removed", "route del 9.0.0.0/25 dev m-dcos", "added route 9.0.0.0/25"},
		{"link-local route removed", "-6 route del fe80::/64 dev m-dcos", "added route fe80::/64"},
		{"deleted", "link del m-dcos", "m-dcos: created"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKernel(t)
			// Another device with a link-local route of its own.
			ip(t, "link add other type bridge")
			ip(t, "addr add fe80::7/64 dev other nodad")
			ip(t, "link set other up")
			ensureBridge(t, k, sampleBridge())
			ip(t, c.breakage)
			contains(t, ensureBridge(t, k, sampleBridge()), c.repair)
			if again := ensureBridge(t, k, sampleBridge()); again != "" {
				t.Errorf("still to repair: %s", again)
			}
		})
	}
}

// TestBridgeMACStays: a bridge without a MAC of its own would take the port's.
func TestBridgeMACStays(t *testing.T) {
	k := newKernel(t)
	ensureBridge(t, k, sampleBridge())
	ip(t, "link add v0 address 02:00:00:00:00:03 type veth peer name v1")
	ip(t, "link set v0 master m-dcos up")
	contains(t, ip(t, "link show m-dcos"), "link/ether 0a:58:09:00:00:01")
}

func TestBridgeOtherKind(t *testing.T) {
	k := newKernel(t)
	ip(t, "link add m-dcos type veth peer name other")
	_, err := k.EnsureBridge(context.Background(), sampleBridge())
	if err == nil {
		t.Fatal("a veth became a bridge")
	}
	contains(t, err.Error(), "make bridge m-dcos", "kind veth", "ip link delete m-dcos")
	contains(t, ip(t, "link show m-dcos"), "m-dcos")
}

// TestBridgeFirstAtOnce is the race of the first containers of an overlay.
func TestBridgeFirstAtOnce(t *testing.T) {
	for range 10 {
		t.Run("", func(t *testing.T) {
			var kernels []*Kernel
			netnstest.Enter(t)
			for range 8 {
				kernels = append(kernels, open(t))
			}
			errs := make([]error, len(kernels))
			var wg sync.WaitGroup
			for i, k := range kernels {
				wg.Go(func() { _, errs[i] = k.EnsureBridge(context.Background(), sampleBridge()) })
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Error(err)
			}
			contains(t, ip(t, "addr show m-dcos"), "inet 9.0.0.1/25 ", "inet6 fd01:b::1/81")
		})
	}
}

func TestUnderlay(t *testing.T) {
	k := newKernel(t)
	ip(t, "link add uplink mtu 1400 type veth peer name other")
	ip(t, "addr add 192.0.2.1/24 dev uplink")
	ip(t, "addr add 2001:db8::1/64 dev uplink nodad")
	ip(t, "addr add 198.51.100.1/32 dev lo")
	index := link(t, "uplink").Attrs().Index
	for text, want := range map[string]Underlay{
		"192.0.2.1":        {"uplink", index, 1400},
		"::ffff:192.0.2.1": {"uplink", index, 1400},
		"2001:db8::1":      {"uplink", index, 1400},
		"198.51.100.1":     {"lo", 1, 1500},
	} {
		if got, err := k.Underlay(netip.MustParseAddr(text)); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	_, err := k.Underlay(netip.MustParseAddr("192.0.2.2"))
	if !errors.Is(err, ErrNoDevice) {
		t.Fatalf("got %v", err)
	}
	contains(t, err.Error(), "no device of this host has the address 192.0.2.2")
}

func TestRemoveLink(t *testing.T) {
	k := newKernel(t)
	ensureBridge(t, k, sampleBridge())
	for range 2 {
		if err := k.RemoveLink("m-dcos"); err != nil {
			t.Error(err)
		}
	}
	if _, err := netlink.LinkByName("m-dcos"); err == nil {
		t.Error("it is still there")
	}
}

func TestNoDevice(t *testing.T) {
	k := newKernel(t)
	_, err := k.SyncPeers(context.Background(), "vtep1024", dataplane.NewPeers())
	if !errors.Is(err, ErrNoDevice) {
		t.Errorf("got %v", err)
	}
	ensureBridge(t, k, sampleBridge())
	if _, err := k.Peers("m-dcos"); err == nil {
		t.Error("a bridge has peers")
	}
}

func TestBridgeRemove(t *testing.T) {
	k := newKernel(t)
	if err := k.RemoveBridge("m-dcos"); err != nil {
		t.Errorf("an absent bridge: %v", err)
	}
	ensureBridge(t, k, sampleBridge())
	ip(t, "link add dov1 type veth peer name peer1")
	ip(t, "link set dov1 master m-dcos")
	if err := k.RemoveBridge("m-dcos"); !errors.Is(err, ErrInUse) {
		t.Errorf("a bridge with a port: %v", err)
	}
	ip(t, "link show m-dcos")
	ip(t, "link del dov1")
	if err := k.RemoveBridge("m-dcos"); err != nil {
		t.Error(err)
	}
	lacks(t, ip(t, "link"), "m-dcos")
	ip(t, "link add m-dcos type veth peer name peer1")
	if err := k.RemoveBridge("m-dcos"); err == nil {
		t.Error("a device that is no bridge was removed")
	}
}
