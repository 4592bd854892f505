package firewall

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/dcos/dcos-overlay/internal/network"
)

// testNetwork has an overlay of each kind.
func testNetwork() network.Network {
	off := false
	return network.Network{
		VTEPSubnet:  netip.MustParsePrefix("44.128.0.0/20"),
		VTEPSubnet6: netip.MustParsePrefix("fd01:a::/64"),
		VTEPMACOUI:  "70:B3:D5:00:00:00",
		Overlays: []network.Overlay{
			{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24},
			{Name: "dcos6", Subnet6: netip.MustParsePrefix("fd01:b::/64"), Prefix6: 80},
			{Name: "both", Subnet: netip.MustParsePrefix("10.32.0.0/16"), Prefix: 24,
				Subnet6: netip.MustParsePrefix("fd01:c::/64"), Prefix6: 80, Enabled: &off},
		},
	}
}

var goldens = []struct {
	file   string
	v6     bool
	config Config
}{
	{"want4.rules", false, ConfigOf(testNetwork())},
	{"want6.rules", true, ConfigOf(testNetwork())},
	{"filter4.rules", false, filtered(ConfigOf(testNetwork()), FilterIPv4)},
	{"filter6.rules", true, Config{Filter: FilterIPv6}},
	{"isolated4.rules", false, ConfigOf(pair(true))},
	{"isolated6.rules", true, ConfigOf(pair(true))},
}

// filtered is c with a filter.
func filtered(c Config, f Filter) Config {
	c.Filter = f
	return c
}

func TestWantIsGolden(t *testing.T) {
	for _, g := range goldens {
		want, err := os.ReadFile(filepath.Join("testdata", g.file))
		if err != nil {
			t.Fatal(err)
		}
		if got := Want(g.config, g.v6).String(); got != string(want) {
			t.Errorf("%s: the rules are\n%s\nthey should be\n%s", g.file, got, want)
		}
	}
}

func TestWantIgnoresTheOrderOfOverlays(t *testing.T) {
	n := testNetwork()
	slices.Reverse(n.Overlays)
	for _, v6 := range []bool{false, true} {
		if a, b := Want(ConfigOf(n), v6), Want(ConfigOf(testNetwork()), v6); !reflect.DeepEqual(a, b) {
			t.Errorf("v6=%v: the rules depend on the order:\n%s\n%s", v6, a, b)
		}
	}
}

func TestWantOfAFamilyWithoutOverlaysIsEmpty(t *testing.T) {
	n := testNetwork()
	n.Overlays = n.Overlays[:1]
	if got := Want(ConfigOf(n), true).String(); got != "" {
		t.Errorf("IPv6 rules of an IPv4 network:\n%s", got)
	}
	if got := Want(Config{}, false).String(); got != "" {
		t.Errorf("rules of the zero Config:\n%s", got)
	}
}

func TestFilterIsOfTheUnderlaysFamily(t *testing.T) {
	for f, want := range map[Filter][2]bool{FilterAsIs: {}, FilterOff: {}, FilterIPv4: {true, false}, FilterIPv6: {false, true}} {
		for i, v6 := range []bool{false, true} {
			var got, kept bool
			for _, table := range Want(filtered(ConfigOf(testNetwork()), f), v6) {
				got = got || slices.ContainsFunc(table.Chains, func(c Chain) bool { return c.Name == chainInput })
				kept = kept || slices.Contains(table.Kept, chainInput)
			}
			if got != want[i] || kept != (f == FilterAsIs) {
				t.Errorf("filter %d, v6=%v: there is one: %v, it is kept: %v", f, v6, got, kept)
			}
		}
	}
}

func TestNamesFitIptables(t *testing.T) {
	const longest = 28 // XT_EXTENSION_MAXNAMELEN less the terminating zero
	for _, table := range Want(filtered(ConfigOf(testNetwork()), FilterIPv4), false) {
		for _, c := range table.Chains {
			if len(c.Name) > longest {
				t.Errorf("%s has %d characters, iptables allows %d", c.Name, len(c.Name), longest)
			}
		}
	}
}
