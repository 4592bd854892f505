package kernel

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestFixedRoutes(t *testing.T) {
	k := newKernel(t)
	ctx := t.Context()
	ensureBridge(t, k, sampleBridge())
	v4, v6 := netip.MustParseAddr("9.0.255.7"), netip.MustParseAddr("fd01:b:0:0:ffff::7")
	// Somebody else's, and the kernel's own.
	ip(t, "route add 9.0.255.8/32 dev m-dcos proto 45")
	if err := k.AddFixed(ctx, "m-dcos", v4); err != nil {
		t.Fatal(err)
	}
	contains(t, ip(t, "route show"), "9.0.255.7 dev m-dcos proto 44 scope link metric 1", "9.0.0.0/25 dev m-dcos proto kernel")
	repairs, err := k.SyncFixed(ctx, "m-dcos", []netip.Addr{v4, v6})
	if want := []string{"add route to the fixed address fd01:b::ffff:0:0:7 dev m-dcos"}; err != nil || !slices.Equal(repairs, want) {
		t.Errorf("got %q, %v; want %q", repairs, err, want)
	}
	contains(t, ip(t, "-6 route show"), "fd01:b::ffff:0:0:7 dev m-dcos proto 44 metric 1")
	if repairs, err := k.SyncFixed(ctx, "m-dcos", []netip.Addr{v6, v4}); err != nil || len(repairs) > 0 {
		t.Errorf("a second time it repaired %q, %v", repairs, err)
	}
	ip(t, "route add 9.0.255.9/32 dev m-dcos proto 44")
	v4stray, absent := netip.MustParseAddr("9.0.255.9"), netip.MustParseAddr("9.0.255.10")
	for range 2 { // a look changes nothing
		lacking, stray, err := k.CheckFixed(ctx, "m-dcos", []netip.Addr{absent, v6})
		slices.SortFunc(stray, netip.Addr.Compare)
		if err != nil || !slices.Equal(lacking, []netip.Addr{absent}) || !slices.Equal(stray, []netip.Addr{v4, v4stray}) {
			t.Errorf("it lacks %v, and has %v beside, %v", lacking, stray, err)
		}
	}
	repairs, err = k.SyncFixed(ctx, "m-dcos", []netip.Addr{v6})
	slices.Sort(repairs)
	if want := []string{"delete route to the fixed address 9.0.255.7 dev m-dcos", "delete route to the fixed address 9.0.255.9 dev m-dcos"}; err != nil || !slices.Equal(repairs, want) {
		t.Errorf("got %q, %v; want %q", repairs, err, want)
	}
	for range 2 {
		if err := k.RemoveFixed(ctx, "m-dcos", v6, v4); err != nil {
			t.Error(err)
		}
	}
	contains(t, ip(t, "route show"), "9.0.255.8 dev m-dcos proto 45", "9.0.0.0/25 dev m-dcos proto kernel")
	lacks(t, ip(t, "route show")+ip(t, "-6 route show"), "proto 44")
	if err := k.AddFixed(ctx, "m-none", v4); !errors.Is(err, ErrNoDevice) {
		t.Errorf("without bridge: %v", err)
	}
	if _, _, err := k.CheckFixed(ctx, "m-none", nil); !errors.Is(err, ErrNoDevice) {
		t.Errorf("without bridge: %v", err)
	}
	if err := k.RemoveFixed(ctx, "m-none", v4); err != nil {
		t.Errorf("without bridge: %v", err)
	}
}

func TestNoRedirects(t *testing.T) {
	k := newKernel(t)
	ensureBridge(t, k, sampleBridge())
	command(t, "sysctl -w net.ipv4.conf.all.send_redirects=1 net.ipv4.conf.m-dcos.send_redirects=1")
	other := command(t, "sysctl -n net.ipv4.conf.lo.send_redirects")
	if problems, err := k.CheckNoRedirects(t.Context(), "m-dcos"); err != nil || len(problems) != 2 || problems[0] != "net.ipv4.conf.m-dcos.send_redirects is 1, not 0" {
		t.Errorf("before, there is wrong: %q, %v", problems, err)
	}
	repairs, err := k.EnsureNoRedirects(t.Context(), "m-dcos")
	if err != nil || len(repairs) != 2 {
		t.Errorf("got %q, %v", repairs, err)
	}
	if got := command(t, "sysctl -n net.ipv4.conf.all.send_redirects net.ipv4.conf.m-dcos.send_redirects"); strings.Fields(got)[0] != "0" || strings.Fields(got)[1] != "0" {
		t.Errorf("they are %q", got)
	}
	if got := command(t, "sysctl -n net.ipv4.conf.lo.send_redirects"); got != other {
		t.Errorf("another device has %q", got)
	}
	if problems, err := k.CheckNoRedirects(t.Context(), "m-dcos"); err != nil || len(problems) > 0 {
		t.Errorf("after it there is wrong: %q, %v", problems, err)
	}
	if repairs, err := k.EnsureNoRedirects(t.Context(), "m-dcos"); err != nil || len(repairs) > 0 {
		t.Errorf("a second time it repaired %q, %v", repairs, err)
	}
}

func TestDisconnect(t *testing.T) {
	k := newKernel(t)
	ip(t, "link add dov1 type veth peer name peer1")
	ip(t, "link set dov1 up")
	for i, want := range []bool{true, false} {
		if down, err := k.Disconnect(t.Context(), "dov1"); err != nil || down != want {
			t.Errorf("%d: got %t, %v", i, down, err)
		}
	}
	if k.Connected("dov1") || !k.Exists("dov1") || k.Exists("dov2") {
		t.Error("dov1 is not what it should be, or dov2 is there")
	}
	if down, err := k.Disconnect(t.Context(), "dov2"); err != nil || down {
		t.Errorf("one that is not there: %t, %v", down, err)
	}
}
