package kernel

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// TestTunnel joins two hosts by an underlay and sends data from the Mesos
// bridge of one to that of the other, in both families.
func TestTunnel(t *testing.T) {
	for name, underlay := range map[string][2]string{
		"over IPv4": {"192.0.2.1", "192.0.2.2"},
		"over IPv6": {"2001:db8::1", "2001:db8::2"},
	} {
		t.Run(name, func(t *testing.T) {
			hosts := [2]netns.NsHandle{netnstest.Enter(t), netnstest.Enter(t)}
			all := agents(2)
			for i := range all {
				all[i].IP = netip.MustParseAddr(underlay[i])
			}
			enter(t, hosts[0])
			cable(t, hosts[1])
			for i := range hosts {
				enter(t, hosts[i])
				setUpHost(t, all, i)
			}
			for _, from := range []int{0, 1} {
				to := 1 - from
				src := dataplane.MesosBridgeOf(all[from].Overlays[0], 1400).Addrs
				dst := dataplane.MesosBridgeOf(all[to].Overlays[0], 1400).Addrs
				for i := range src {
					talk(t, hosts[from], hosts[to], src[i].Addr(), dst[i].Addr())
				}
			}
			enter(t, hosts[1])
		})
	}
}

func enter(t *testing.T, ns netns.NsHandle) {
	t.Helper()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
}

// cable connects the current namespace with another by a veth called uplink.
func cable(t *testing.T, other netns.NsHandle) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "uplink", PeerNamespace: netlink.NsFd(other)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
}

// setUpHost makes the current namespace the host of the ith agent of all.
func setUpHost(t *testing.T, all []lease.Agent, i int) {
	t.Helper()
	self := all[i]
	ip(t, "link set uplink up")
	if self.IP.Is4() {
		ip(t, "addr add "+self.IP.String()+"/24 dev uplink")
	} else {
		ip(t, "addr add "+self.IP.String()+"/64 dev uplink nodad")
	}
	k := open(t)
	u, err := k.Underlay(self.IP)
	if err != nil {
		t.Fatal(err)
	}
	mtu := dataplane.ContainerMTU(0, u.MTU, self.IP.Is6())
	ensureVTEP(t, k, dataplane.VTEPOf(&self, mtu))
	ensureBridge(t, k, dataplane.MesosBridgeOf(self.Overlays[0], mtu))
	if _, err := k.EnsureForwarding(context.Background(), true, true); err != nil {
		t.Fatal(err)
	}
	syncPeers(t, k, dataplane.PeersOf(self.IP, all))
}

// talk sends more data than fits into one packet and reads it back.
func talk(t *testing.T, from, to netns.NsHandle, src, dst netip.Addr) {
	t.Helper()
	enter(t, to)
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(dst, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	echoed := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(conn, conn)
			conn.Close()
		}
		echoed <- err
	}()

	enter(t, from)
	dialer := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0)),
		Timeout:   20 * time.Second,
	}
	conn, err := dialer.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatalf("%s to %s: %v\n%s%s", src, dst, err, ip(t, "route"), ip(t, "-s link"))
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("overlay "), 10_000)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%s to %s: %d of %d bytes came back: %v", src, dst, len(got), len(sent), err)
	}
	if err := <-echoed; err != nil {
		t.Error(err)
	}
}
