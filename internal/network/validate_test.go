package network

import (
	"net/netip"
	"slices"
	"testing"
)

func valid() Network {
	return Network{
		VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"),
		VTEPMACOUI: "70:B3:D5:00:00:00",
		Overlays:   []Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24}},
	}
}

// The rules as an operator meets them are tested in package networkfile; here
// is what only a program can get wrong.
func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Network)
		want   []string
	}{
		{"valid", func(*Network) {}, nil},
		{"the zero Network", func(n *Network) { *n = Network{} }, []string{
			"vtep_subnet: is missing; it is the range that agents get their VTEP's address from, such as 44.128.0.0/20",
			"vtep_mac_oui: is missing; it is the first half of every VTEP's MAC, such as 70:B3:D5:00:00:00",
			"overlays: no overlay is configured; at least one is needed",
		}},
		{"an invalid prefix that is not zero", func(n *Network) {
			n.Overlays[0].Subnet = netip.PrefixFrom(netip.MustParseAddr("9.0.0.0"), 33)
		}, []string{
			"overlays[0].subnet: invalid Prefix is not an IPv4 subnet such as 9.0.0.0/8",
		}},
		{"the longest name", func(n *Network) { n.Overlays[0].Name = "abcdefghijklm" }, nil},
		{"IPv6 in the VTEPs' pool alone asks for its MTU", func(n *Network) {
			n.VTEPSubnet6, n.VTEPMTU = netip.MustParsePrefix("fd01:a::/64"), 1279
		}, []string{
			"vtep_mtu: 1279 is less than 1280, which IPv6 needs; leave it out to have it from the underlay",
		}},
		{"neighbouring spaces", func(n *Network) {
			n.Overlays = append(n.Overlays,
				Overlay{Name: "a", Subnet: netip.MustParsePrefix("44.128.16.0/20"), Prefix: 29},
				Overlay{Name: "b", Subnet: netip.MustParsePrefix("10.0.0.0/8"), Prefix: 9})
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := valid()
			tt.change(&n)
			var got []string
			for _, p := range n.Validate() {
				got = append(got, p.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestProblemsSort(t *testing.T) {
	ps := Problems{{Line: 7, Column: 2, Message: "d"}, {Line: 7, Column: 1, Message: "c"}, {Message: "a"}, {Line: 2, Message: "b"}, {Line: 7, Column: 2, Message: "e"}}
	ps.Sort()
	if got, want := ps.Error(), "a\nline 2: b\nline 7: c\nline 7: d\nline 7: e"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
