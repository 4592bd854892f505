package network

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestWithoutIPv6(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("9.0.0.0/8"), netip.MustParsePrefix("fd01:b::/64")
	n := Network{VTEPSubnet: v4, VTEPSubnet6: v6, Overlays: []Overlay{
		{Name: "six", Subnet6: v6, Prefix6: 80},
		{Name: "dual", Subnet: v4, Prefix: 24, Subnet6: v6, Prefix6: 80, StaticSubnet6: v6, Isolated: true},
	}}
	want := Network{VTEPSubnet: v4, Overlays: []Overlay{{Name: "dual", Subnet: v4, Prefix: 24, Isolated: true}}}
	if got := n.WithoutIPv6(); !reflect.DeepEqual(got, want) {
		t.Errorf("it is %+v, want %+v", got, want)
	}
	if len(n.Overlays) != 2 || n.Overlays[1].Subnet6 != v6 {
		t.Errorf("the original is %+v now", n)
	}
}
