package cniresult

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/dcos/dcos-overlay/internal/ipam"
)

func addr(prefix, gateway string) ipam.Address {
	a := ipam.Address{Prefix: netip.MustParsePrefix(prefix)}
	if gateway != "" {
		a.Gateway = netip.MustParseAddr(gateway)
	}
	return a
}

func everywhere() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
}

func TestRoutesNeedAGateway(t *testing.T) {
	for _, tt := range []struct {
		addrs []ipam.Address
		want  string
	}{
		{[]ipam.Address{addr("9.0.0.2/25", "9.0.0.1")}, "[0.0.0.0/0 by 9.0.0.1]"},
		{[]ipam.Address{addr("9.0.0.2/25", "9.0.0.1"), addr("fd01::2/81", "fd01::1")}, "[0.0.0.0/0 by 9.0.0.1 ::/0 by fd01::1]"},
		{[]ipam.Address{addr("9.0.0.2/25", ""), addr("9.0.1.2/25", "9.0.1.1"), addr("9.0.2.2/25", "9.0.2.1")}, "[0.0.0.0/0 by 9.0.1.1]"},
		{[]ipam.Address{addr("9.0.0.2/25", "")}, "[]"},
	} {
		r := New(types.DNS{}, tt.addrs, everywhere())
		var got []string
		for _, route := range r.Routes {
			got = append(got, fmt.Sprintf("%s by %s", route.Dst.String(), route.GW))
		}
		if len(r.IPs) != len(tt.addrs) || fmt.Sprint(got) != tt.want {
			t.Errorf("%v: %d addresses, routes %v", tt.addrs, len(r.IPs), got)
		}
	}
}

func TestPrev(t *testing.T) {
	for _, version := range []string{"0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		ips := `"ips":[{"version":"4","address":"9.0.0.2/25","gateway":"9.0.0.1","interface":0}],"interfaces":[{"name":"eth0","sandbox":"/ns"}]`
		if version == "0.2.0" {
			ips = `"ip4":{"ip":"9.0.0.2/25","gateway":"9.0.0.1"}`
		}
		prev, err := Prev(fmt.Appendf(nil, `{"cniVersion":%q,"name":"dcos","prevResult":{"cniVersion":%q,%s}}`, version, version, ips))
		if err != nil || len(prev.IPs) != 1 || prev.IPs[0].Address.String() != "9.0.0.2/25" {
			t.Errorf("%s: %v, %v", version, prev, err)
		}
	}
	if prev, err := Prev([]byte(`{"name":"dcos"}`)); prev != nil || err != nil {
		t.Errorf("without: %v, %v", prev, err)
	}
	var coded *types.Error
	for _, bad := range []string{`{"cniVersion":"1.0.0","prevResult":7}`, `{"cniVersion":"1.0.0","prevResult":{"ips":[{"address":"x"}]}}`, `{"cniVersion":"7.0.0","prevResult":{"ips":[]}}`} {
		if prev, err := Prev([]byte(bad)); !errors.As(err, &coded) || coded.Code != types.ErrDecodingFailure {
			t.Errorf("%s: %v, %v", bad, prev, err)
		}
	}
}

func TestAfterAndOf(t *testing.T) {
	prev := New(types.DNS{Nameservers: []string{"192.0.2.53"}}, []ipam.Address{addr("127.0.0.1/8", "")}, nil)
	prev.Interfaces = []*current.Interface{{Name: "lo", Sandbox: "/ns"}}
	prev.IPs[0].Interface = current.Int(0)
	ours := New(types.DNS{}, []ipam.Address{addr("9.0.0.2/25", "9.0.0.1"), addr("fd01::2/81", "fd01::1")}, everywhere())
	ours.Interfaces = []*current.Interface{{Name: "m-dcos"}, {Name: "dov1"}, {Name: "eth0", Sandbox: "/ns", Mac: "0a:58:09:00:00:02"}}
	for _, ip := range ours.IPs {
		ip.Interface = current.Int(2)
	}
	r := After(prev, ours)
	if len(r.Interfaces) != 4 || len(r.IPs) != 3 || *r.IPs[0].Interface != 0 || *r.IPs[2].Interface != 3 || len(r.Routes) != 2 || r.DNS.Nameservers[0] != "192.0.2.53" {
		t.Errorf("got %+v", r)
	}
	if *ours.IPs[0].Interface != 2 || len(prev.IPs) != 1 {
		t.Error("what it was made of was changed")
	}
	// A route of another interface's gateway is not eth0's.
	r.Routes = append(r.Routes, &types.Route{Dst: ipNet(netip.MustParsePrefix("192.0.2.0/24")), GW: []byte{10, 0, 0, 1}})
	part, err := Of(r, "eth0")
	if err != nil || part.Interface != r.Interfaces[3] || fmt.Sprint(part.Addrs, part.Routes) != "[{9.0.0.2/25 9.0.0.1} {fd01::2/81 fd01::1}] [0.0.0.0/0 ::/0]" {
		t.Errorf("got %+v, %v", part, err)
	}
	if part, err := Of(r, "eth7"); err != nil || part.Interface != nil || len(part.Addrs) != 0 {
		t.Errorf("of an interface that is not there: %+v, %v", part, err)
	}
	ipamOnly := New(types.DNS{}, []ipam.Address{addr("9.0.0.2/25", "9.0.0.1")}, everywhere())
	if part, err := Of(ipamOnly, "eth0"); err != nil || len(part.Addrs) != 1 {
		t.Errorf("of an IPAM plugin's: %+v, %v", part, err)
	}
}
