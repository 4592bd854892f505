package lease

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestSides(t *testing.T) {
	subnets := func(texts ...string) (out []netip.Prefix) {
		for _, text := range texts {
			out = append(out, netip.MustParsePrefix(text))
		}
		return out
	}
	for _, tt := range []struct {
		name             string
		overlay          Overlay
		mesos4, mesos6   string
		docker4, docker6 string
	}{
		{"halves", Overlay{Subnets: subnets("9.0.1.0/24"), Subnets6: subnets("fd01:b:0:0:1::/80")},
			"[9.0.1.0/25]", "[fd01:b:0:0:1::/81]", "9.0.1.128/25", "fd01:b::1:8000:0:0/81"},
		{"more subnets are Mesos's", Overlay{Subnets: subnets("9.0.1.0/24", "9.0.7.0/24")},
			"[9.0.1.0/25 9.0.7.0/24]", "[]", "9.0.1.128/25", "invalid Prefix"},
		{"a small part for Docker", Overlay{Subnets: subnets("9.0.1.0/24", "9.0.7.0/24"), Split: Split{DockerPrefix: 27}},
			"[9.0.1.0/25 9.0.1.128/26 9.0.1.192/27 9.0.7.0/24]", "[]", "9.0.1.224/27", "invalid Prefix"},
		{"a small part of IPv6 alone", Overlay{Subnets: subnets("9.0.1.0/24"), Subnets6: subnets("fd01:b::/80"), Split: Split{DockerPrefix6: 82}},
			"[9.0.1.0/25]", "[fd01:b::/81 fd01:b::8000:0:0/82]", "9.0.1.128/25", "fd01:b::c000:0:0/82"},
		{"all for Mesos", Overlay{Subnets: subnets("9.0.1.0/24", "9.0.2.0/24"), Subnets6: subnets("fd01:b::/80"), Split: Split{Whole: true}},
			"[9.0.1.0/24 9.0.2.0/24]", "[fd01:b::/80]", "invalid Prefix", "invalid Prefix"},
		{"nothing", Overlay{}, "[]", "[]", "invalid Prefix", "invalid Prefix"},
	} {
		m4, m6 := tt.overlay.MesosSide()
		d4, d6 := tt.overlay.DockerSide()
		got := fmt.Sprintln(m4, m6, d4, d6)
		if want := fmt.Sprintln(tt.mesos4, tt.mesos6, tt.docker4, tt.docker6); got != want {
			t.Errorf("%s: the sides are %s, want %s", tt.name, got, want)
		}
	}
}

func TestWithoutIPv6(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("9.0.1.0/24"), netip.MustParsePrefix("fd01:b::/80")
	a := Agent{
		VTEP: VTEP{IP: v4, IP6: v6},
		Overlays: []Overlay{
			{Name: "four", Subnets: []netip.Prefix{v4}},
			{Name: "six", Subnets6: []netip.Prefix{v6}},
			{Name: "dual", Subnets: []netip.Prefix{v4}, Subnets6: []netip.Prefix{v6}, Addresses: []Address{{IP: v4.Addr()}, {IP: v6.Addr()}}},
		},
	}
	was := fmt.Sprint(a)
	got := fmt.Sprint(a.WithoutIPv6().Overlays, a.WithoutIPv6().VTEP.IP6)
	want := fmt.Sprint([]Overlay{a.Overlays[0], {Name: "dual", Subnets: []netip.Prefix{v4}, Addresses: []Address{{IP: v4.Addr()}}}}, netip.Prefix{})
	if got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	if now := fmt.Sprint(a); now != was {
		t.Errorf("the original was %s and is %s", was, now)
	}
}
