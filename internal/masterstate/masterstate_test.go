package masterstate

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// TestReferenceState builds DC/OS's sample from records, and reads it back.
func TestReferenceState(t *testing.T) {
	golden, err := os.ReadFile("testdata/overlay-master-state.json")
	if err != nil {
		t.Fatal(err)
	}
	n := network.Network{
		VTEPSubnet:  netip.MustParsePrefix("44.128.0.0/20"),
		VTEPSubnet6: netip.MustParsePrefix("fd01:a::/64"),
		VTEPMACOUI:  "70:B3:D5:00:00:00",
		Overlays: []network.Overlay{
			{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24},
			{Name: "dcos6", Subnet6: netip.MustParsePrefix("fd01:b::/64"), Prefix6: 80},
		},
	}
	agent := func(ip, vtep, vtep6, subnet, subnet6 string, bridges bool) lease.Agent {
		v := netip.MustParsePrefix(vtep)
		mac, err := n.VTEPMAC(v.Addr())
		if err != nil {
			t.Fatal(err)
		}
		conf := lease.DefaultNetworkConfig()
		conf.MesosBridge, conf.DockerBridge = bridges, bridges
		ok := lease.State{Status: lease.StatusOK}
		return lease.Agent{
			IP: netip.MustParseAddr(ip), Config: conf,
			VTEP: lease.VTEP{IP: v, IP6: netip.MustParsePrefix(vtep6), MAC: mac},
			Overlays: []lease.Overlay{
				{Name: "dcos", Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}, State: ok},
				{Name: "dcos6", Subnets6: []netip.Prefix{netip.MustParsePrefix(subnet6)}, State: ok},
			},
		}
	}
	state := State{Network: n}
	for _, a := range []lease.Agent{
		agent("172.17.0.2", "44.128.0.1/20", "fd01:a::1/64", "9.0.0.0/24", "fd01:b::/80", false),
		agent("172.17.0.4", "44.128.0.2/20", "fd01:a::2/64", "9.0.1.0/24", "fd01:b:0:0:1::/80", true),
		agent("172.17.0.3", "44.128.0.3/20", "fd01:a::3/64", "9.0.2.0/24", "fd01:b:0:0:2::/80", true),
	} {
		state.Agents = append(state.Agents, Entry(&a, &n))
	}
	got, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	var have, want any
	if err := json.Unmarshal(got, &have); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(golden, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("got  %s\nwant %s", got, golden)
	}
	var back State
	dec := json.NewDecoder(bytes.NewReader(golden))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, state) {
		t.Errorf("read back %+v\nwant %+v", back, state)
	}
}

func TestExtraSubnetsKeepTheHalves(t *testing.T) {
	o := lease.Overlay{Subnets: []netip.Prefix{netip.MustParsePrefix("9.0.1.0/24"), netip.MustParsePrefix("9.0.7.0/24")}}
	v4, v6 := o.MesosSide()
	want := lease.Side{netip.MustParsePrefix("9.0.1.0/25"), netip.MustParsePrefix("9.0.7.0/24")}
	if !reflect.DeepEqual(v4, want) || v6 != nil {
		t.Errorf("got %v and %v, want %v", v4, v6, want)
	}
	if d, _ := o.DockerSide(); d != netip.MustParsePrefix("9.0.1.128/25") {
		t.Errorf("Docker's side is %v", d)
	}
}
