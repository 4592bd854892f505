package network

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestClashes(t *testing.T) {
	p := netip.MustParsePrefix
	n := Network{
		VTEPSubnet: p("44.128.0.0/20"), VTEPSubnet6: p("fd01:a::/64"),
		Overlays: []Overlay{
			{Name: "dcos", Subnet: p("9.0.0.0/8")},
			{Name: "both", Subnet: p("10.32.0.0/16"), Subnet6: p("fd01:c::/64")},
		},
	}
	for route, want := range map[string]string{
		"9.5.0.0/16":     "[overlay dcos (9.0.0.0/8)]",
		"8.0.0.0/6":      "[overlay dcos (9.0.0.0/8) overlay both (10.32.0.0/16)]",
		"44.128.1.0/24":  "[vtep_subnet (44.128.0.0/20)]",
		"44.128.16.0/24": "[]",
		"fd01::/16":      "[vtep_subnet6 (fd01:a::/64) overlay both (fd01:c::/64)]",
		"fd01:b::/64":    "[]",
		"10.33.0.0/16":   "[]",
	} {
		if got := fmt.Sprint(n.Clashes(p(route))); got != want {
			t.Errorf("%s clashes with %s, want %s", route, got, want)
		}
	}
}
