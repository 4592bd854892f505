package cniresult

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/dcos/dcos-overlay/internal/ipam"
)

// TestPrint: what is printed says the same as what the library prints, in all
// versions.
func TestPrint(t *testing.T) {
	v4, v6 := addr("9.0.0.2/25", "9.0.0.1"), addr("fd01::2/81", "fd01::1")
	link := func(r *current.Result) {
		r.Interfaces = []*current.Interface{{Name: "m-dcos", Mac: "0a:58:09:00:00:01", Mtu: 1420}, {Name: "dov1"}, {Name: "eth0", Sandbox: "/ns"}}
		for _, ip := range r.IPs {
			ip.Interface = current.Int(2)
		}
	}
	quick := 0
	for name, tt := range map[string]struct {
		dns    types.DNS
		addrs  []ipam.Address
		change func(*current.Result)
		slow   bool
	}{
		"one family":     {addrs: []ipam.Address{v4}, change: link},
		"both":           {addrs: []ipam.Address{v4, v6}, change: link},
		"IPv6":           {addrs: []ipam.Address{v6}, change: link},
		"an IPAM's":      {addrs: []ipam.Address{v4, v6}},
		"no gateway":     {addrs: []ipam.Address{addr("9.0.0.2/25", "")}},
		"DNS":            {dns: types.DNS{Nameservers: []string{"192.0.2.53"}}, addrs: []ipam.Address{v4}, change: link, slow: true},
		"odd letters":    {addrs: []ipam.Address{v4}, change: func(r *current.Result) { link(r); r.Interfaces[2].Sandbox = "/<\"&ä\n" }},
		"a socket":       {addrs: []ipam.Address{v4}, change: func(r *current.Result) { link(r); r.Interfaces[2].SocketPath = "/s" }},
		"a route's more": {addrs: []ipam.Address{v4}, change: func(r *current.Result) { link(r); r.Routes[0].Priority = 7 }},
	} {
		for _, v := range version.All.SupportedVersions() {
			r := New(tt.dns, tt.addrs, everywhere())
			if tt.change != nil {
				tt.change(r)
			}
			as, err := r.GetAsVersion(v)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, v, err)
			}
			var got, want bytes.Buffer
			if err := Print(&got, as); err != nil {
				t.Fatalf("%s, %s: %v", name, v, err)
			}
			if err := as.PrintTo(&want); err != nil {
				t.Fatal(err)
			}
			var g, w any
			if json.Unmarshal(got.Bytes(), &g) != nil || json.Unmarshal(want.Bytes(), &w) != nil || !reflect.DeepEqual(g, w) {
				t.Errorf("%s, %s: got %s, the library says %s", name, v, got.String(), want.String())
			}
			if isQuick := !bytes.Contains(got.Bytes(), []byte("\n")); isQuick {
				if quick++; tt.slow {
					t.Errorf("%s, %s: printed by ourselves: %s", name, v, got.String())
				}
			}
		}
	}
	if quick < 5*len(version.All.SupportedVersions()) {
		t.Errorf("only %d results are not left to the library", quick)
	}
}
