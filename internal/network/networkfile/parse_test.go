package networkfile

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/network"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// masterNetwork is what testdata/master.json says.
func masterNetwork() network.Network {
	return network.Network{
		VTEPSubnet:  netip.MustParsePrefix("44.128.0.0/20"),
		VTEPSubnet6: netip.MustParsePrefix("fd01:a::/64"),
		VTEPMACOUI:  "70:B3:D5:00:00:00",
		Overlays: []network.Overlay{
			{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24},
			{Name: "dcos6", Subnet6: netip.MustParsePrefix("fd01:b::/64"), Prefix6: 80},
		},
	}
}

func TestParseFormats(t *testing.T) {
	no := false
	tests := []struct {
		name string
		data []byte
		want network.Network
	}{
		{"master.json", sample(t, "master.json"), masterNetwork()},
		{"overlay-config.json", sample(t, "overlay-config.json"), network.Network{
			VTEPSubnet: netip.MustParsePrefix("44.128.0.0/16"),
			VTEPMACOUI: "70:B3:D5:00:00:00",
			Overlays: []network.Overlay{
				{Name: "vxlan-1", Subnet: netip.MustParsePrefix("192.168.0.0/17"), Prefix: 24},
				{Name: "vxlan-2", Subnet: netip.MustParsePrefix("192.168.128.0/17"), Prefix: 24},
			},
		}},
		{"config.yaml", sample(t, "config.yaml"), network.Network{
			VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"),
			VTEPMACOUI: "70:B3:D5:00:00:00",
			Overlays: []network.Overlay{
				{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 26},
				{Name: "dcos-1", Subnet: netip.MustParsePrefix("192.168.0.0/16"), Prefix: 24},
			},
		}},
		{"master.json with all of its fields", edit(t, `"replicated_log_dir"`,
			`"zk": "zk://127.0.0.1:2181/mesos", "replicated_log_timeout": 300, "replicated_log_dir"`), masterNetwork()},
		{"both families, the MTU, and a disabled overlay", []byte(`
vtep_subnet: 44.0.0.0/8
vtep_subnet6: fd01:a::/126
vtep_mac_oui: 02:00:00:00:00:00
vtep_mtu: 1280
overlays:
- {name: Both_4.6-x, subnet: 10.0.0.0/28, prefix: 29, subnet6: "fd01:b::/124", prefix6: 125, enabled: false, isolated: true, max_subnets: 1, docker_prefix: 30, docker_prefix6: 126}
`), network.Network{
			VTEPSubnet:  netip.MustParsePrefix("44.0.0.0/8"),
			VTEPSubnet6: netip.MustParsePrefix("fd01:a::/126"),
			VTEPMACOUI:  "02:00:00:00:00:00",
			VTEPMTU:     1280,
			Overlays: []network.Overlay{{
				Name:   "Both_4.6-x",
				Subnet: netip.MustParsePrefix("10.0.0.0/28"), Prefix: 29,
				Subnet6: netip.MustParsePrefix("fd01:b::/124"), Prefix6: 125,
				Enabled: &no, Isolated: true, MaxSubnets: 1, DockerPrefix: 30, DockerPrefix6: 126,
			}},
		}},
		{"names that differ in case, YAML's alias, tabs in JSON", []byte(
			"{\t\"vtep_subnet\": &a \"44.0.0.0/30\",\n\t\"vtep_mac_oui\": \"70:b3:d5:00:00:00\", \"vtep_mtu\": 576,\n" +
				"\t\"overlays\": [{\"name\": \"a\", \"subnet\": &s 10.0.0.0/24, \"prefix\": &p 25},\n" +
				"\t\t{\"name\": \"A\", \"subnet\": \"10.0.1.0/24\", \"prefix\": *p}]}"), network.Network{
			VTEPSubnet: netip.MustParsePrefix("44.0.0.0/30"),
			VTEPMACOUI: "70:b3:d5:00:00:00",
			VTEPMTU:    576,
			Overlays: []network.Overlay{
				{Name: "a", Subnet: netip.MustParsePrefix("10.0.0.0/24"), Prefix: 25},
				{Name: "A", Subnet: netip.MustParsePrefix("10.0.1.0/24"), Prefix: 25},
			},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// edit is testdata/master.json with the first old in it replaced.
func edit(t testing.TB, old, new string) []byte {
	t.Helper()
	data := string(sample(t, "master.json"))
	if !strings.Contains(data, old) {
		t.Fatalf("testdata/master.json does not hold %s", old)
	}
	return []byte(strings.Replace(data, old, new, 1))
}

func TestParseProblems(t *testing.T) {
	type test struct {
		name string
		// old and new edit testdata/master.json; without old, new is the file.
		old, new string
		want     string
	}
	tests := []test{
		{"empty file", "", "\n",
			"there is no configuration here: the file is empty"},
		{"comment only", "", "# nothing\n",
			"there is no configuration here: the file is empty"},
		{"not text", "", "a: \xff",
			"line 1: the byte 0xff is not text; save the file as plain UTF-8"},
		{"control character", "", "a: 1\nb: \x00",
			"line 2: the byte 0x0 is not text; save the file as plain UTF-8"},
		{"JSON without a comma", `"44.128.0.0/20",`, `"44.128.0.0/20"`,
			`line 5: this is not JSON: invalid character '"' after object key:value pair`},
		{"JSON cut short", "", "{\"overlays\": [\n{\"name\": \"dcos\"",
			"line 2: this is not JSON: unexpected end of JSON input"},
		{"YAML that is none", "", "a: 1\nb: c: d\n",
			"line 2: this is not YAML: mapping values are not allowed in this context"},
		{"YAML with bad indentation", "", "a:\n  - b\n - c\n",
			"line 3: this is not YAML: did not find expected key"},
		{"unknown anchor", "", "overlays: *x\n",
			"this is not YAML: unknown anchor 'x' referenced"},
		{"two documents", "", "{}\n---\n{}\n",
			"line 2: a second document begins here; only one is read"},
		{"a list", "", "[1]",
			"line 1: want an object, have a list"},
		{"a word", "", "dcos",
			`line 1: want an object, have "dcos"`},
		{"an agent's configuration", "", `{"cni_dir": "/x", "network_config": {}}`,
			"line 1: this is an agent's configuration (agent.json), which the companion takes with --agent-config; the network's is a master.json, a config.yaml, or an object with vtep_subnet and overlays"},
		{"an agent's configuration, no more than the master", "", `{"master": "10.0.0.1"}`,
			"line 1: this is an agent's configuration (agent.json), which the companion takes with --agent-config; the network's is a master.json, a config.yaml, or an object with vtep_subnet and overlays"},
		{"nothing of ours", "", "cluster_name: example\n",
			`line 1: there is no overlay network here: want "network" (master.json), "dcos_overlay_network" (config.yaml), or an object with vtep_subnet and overlays`},
		{"an empty object", "", "{}",
			`line 1: there is no overlay network here: want "network" (master.json), "dcos_overlay_network" (config.yaml), or an object with vtep_subnet and overlays`},
		{"network is a list", "", `{"network": []}`,
			"line 1, network: want an object, have a list"},
		{"dcos_overlay_network is text", "", "a: 1\ndcos_overlay_network: '{\"vtep_subnet\": \"44.128.0.0/20\", \"overlays\": []}'\n",
			`line 2, dcos_overlay_network: want an object, have "{\"vtep_subnet\": \"44.128.0.0/20\", \"overla"`},
		{"dcos_overlay_network is empty", "", "dcos_overlay_network:\n",
			"line 1, dcos_overlay_network: want an object, have nothing"},
		{"unknown field of master.json", `"replicated_log_dir"`, `"replicated_log"`,
			"line 2, replicated_log: there is no such field; there are network, replicated_log_dir, replicated_log_timeout, zk"},
		{"unknown field of the network", `"vtep_mac_oui"`, `"vtep_mtu6": 1, "vtep_mac_oui"`,
			"line 6, vtep_mtu6: there is no such field; there are vtep_subnet, vtep_subnet6, vtep_mac_oui, vtep_mtu, overlays"},
		{"unknown field of an overlay", `"prefix": 24`, `"prefix": 24, "prefx": 24`,
			"line 8, overlays[0].prefx: there is no such field; there are name, subnet, prefix, subnet6, prefix6, enabled, max_subnets, docker_prefix, docker_prefix6, isolated, static_subnet, static_subnet6, static_takeover"},
		{"wrong case of a field", `"prefix": 24`, `"Prefix": 24`,
			"line 8, overlays[0].prefix: is missing; it is the length of an agent's subnet, such as 24\n" +
				"line 8, overlays[0].Prefix: there is no such field; there are name, subnet, prefix, subnet6, prefix6, enabled, max_subnets, docker_prefix, docker_prefix6, isolated, static_subnet, static_subnet6, static_takeover"},
		{"merge key", "", "vtep_subnet: 44.128.0.0/20\nvtep_mac_oui: 70:B3:D5:00:00:00\noverlays:\n- &a {name: a, subnet: 9.0.0.0/8, prefix: 24}\n- {<<: *a, name: b, subnet: 10.0.0.0/8, prefix: 24}\n",
			"line 5, overlays[1].<<: there is no such field; there are name, subnet, prefix, subnet6, prefix6, enabled, max_subnets, docker_prefix, docker_prefix6, isolated, static_subnet, static_subnet6, static_takeover"},
		{"field given twice", `"vtep_mac_oui"`, `"vtep_subnet": "44.128.0.0/20", "vtep_mac_oui"`,
			"line 6, vtep_subnet: is given twice; the first is in line 4"},
		{"field of an overlay given twice", `"prefix": 24`, `"prefix": 24, "prefix": 25`,
			"line 8, overlays[0].prefix: is given twice; the first is in line 8"},
		{"network given twice", `"replicated_log_dir": "/var/lib/dcos/mesos/master/"`, `"network": {}`,
			"line 2, vtep_subnet: is missing; it is the range that agents get their VTEP's address from, such as 44.128.0.0/20\n" +
				"line 2, vtep_mac_oui: is missing; it is the first half of every VTEP's MAC, such as 70:B3:D5:00:00:00\n" +
				"line 2, overlays: no overlay is configured; at least one is needed\n" +
				"line 3, network: is given twice; the first is in line 2"},
		{"no overlays", "", `{"vtep_subnet": "44.128.0.0/20", "vtep_mac_oui": "70:B3:D5:00:00:00"}`,
			"line 1, overlays: no overlay is configured; at least one is needed"},
		{"empty overlays", "", "{\"vtep_subnet\": \"44.128.0.0/20\", \"vtep_mac_oui\": \"70:B3:D5:00:00:00\",\n\"overlays\": []}",
			"line 2, overlays: no overlay is configured; at least one is needed"},
		{"overlays is an object", "", "{\"vtep_subnet\": \"44.128.0.0/20\", \"vtep_mac_oui\": \"70:B3:D5:00:00:00\",\n\"overlays\": {\"name\": \"dcos\"}}",
			"line 2, overlays: want a list, have an object"},
		{"an overlay is text", `{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 24}`, `"dcos"`,
			`line 8, overlays[0]: want an object, have "dcos"`},
		{"name missing", `"name": "dcos", `, "",
			"line 8, overlays[0].name: is missing"},
		{"name empty", `"dcos"`, `""`,
			"line 8, overlays[0].name: is missing"},
		{"name a number", `"dcos"`, "1",
			"line 8, overlays[0].name: want text in quotes, have 1"},
		{"name null", `"dcos"`, "null",
			"line 8, overlays[0].name: want text, have nothing"},
		{"name too long", `"dcos"`, `"abcdefghijklmn"`,
			`line 8, overlays[0].name: "abcdefghijklmn" has 14 bytes; at most 13 fit a device name after "m-"`},
		{"name with a slash", `"dcos"`, `"a/b"`,
			`line 8, overlays[0].name: "a/b" holds '/'; a name holds letters and digits of ASCII, "-", "_" and "." only`},
		{"name with a blank", `"dcos"`, `"a b"`,
			`line 8, overlays[0].name: "a b" holds ' '; a name holds letters and digits of ASCII, "-", "_" and "." only`},
		{"name of dots", `"dcos"`, `".."`,
			`line 8, overlays[0].name: ".." begins with '.'; a name begins with a letter or a digit of ASCII`},
		{"name begins with a dash", `"dcos"`, `"-a"`,
			`line 8, overlays[0].name: "-a" begins with '-'; a name begins with a letter or a digit of ASCII`},
		{"name not ASCII", `"dcos"`, `"über"`,
			`line 8, overlays[0].name: "über" begins with 'ü'; a name begins with a letter or a digit of ASCII`},
		{"name reserved", `"dcos"`, `"host"`,
			`line 8, overlays[0].name: "host" is one of the names that Docker keeps for itself (host, bridge, default, none)`},
		{"name that Docker refuses", `"dcos"`, `"none"`,
			`line 8, overlays[0].name: "none" is one of the names that Docker keeps for itself (host, bridge, default, none)`},
		{"name twice", `"dcos6"`, `"dcos"`,
			`line 9, overlays[1].name: "dcos" is the name of overlays[0] too`},
		{"no addresses", `, "subnet": "9.0.0.0/8", "prefix": 24`, "",
			"line 8, overlays[0]: has no addresses; give it subnet and prefix, or subnet6 and prefix6, or all four"},
		{"subnet without prefix", `, "prefix": 24`, "",
			"line 8, overlays[0].prefix: is missing; it is the length of an agent's subnet, such as 24"},
		{"subnet6 without prefix6", `, "prefix6": 80`, "",
			"line 9, overlays[1].prefix6: is missing; it is the length of an agent's subnet, such as 80"},
		{"prefix without subnet", `"subnet": "9.0.0.0/8", `, "",
			"line 8, overlays[0].subnet: is missing, though prefix is given; it is the overlay's address space, such as 9.0.0.0/8"},
		{"prefix6 without subnet6", `"subnet6": "fd01:b::/64", `, "",
			"line 9, overlays[1].subnet6: is missing, though prefix6 is given; it is the overlay's address space, such as fd01:b::/64"},
		{"subnet is IPv6", `"9.0.0.0/8"`, `"fd01:c::/64"`,
			"line 8, overlays[0].subnet: fd01:c::/64 is not an IPv4 subnet such as 9.0.0.0/8; an IPv6 space goes into subnet6"},
		{"subnet6 is IPv4", `"fd01:b::/64"`, `"10.0.0.0/8"`,
			"line 9, overlays[1].subnet6: 10.0.0.0/8 is not an IPv6 subnet such as fd01:b::/64; an IPv4 space goes into subnet"},
		{"subnet6 is IPv4 in IPv6", `"fd01:b::/64"`, `"::ffff:10.0.0.0/104"`,
			"line 9, overlays[1].subnet6: ::ffff:10.0.0.0/104 overlaps ::ffff:0.0.0.0/96, which is for IPv4 addresses written as IPv6\n" +
				"line 9, overlays[1].prefix6: 80 is not longer than the 104 of subnet6 (::ffff:10.0.0.0/104), which agents' subnets are cut out of"},
		{"subnet with host bits", `"9.0.0.0/8"`, `"9.0.0.1/8"`,
			"line 8, overlays[0].subnet: 9.0.0.1/8 has bits set after its first 8; write 9.0.0.0/8"},
		{"subnet6 with host bits", `"fd01:b::/64"`, `"fd01:b::1/64"`,
			"line 9, overlays[1].subnet6: fd01:b::1/64 has bits set after its first 64; write fd01:b::/64"},
		{"subnet without length", `"9.0.0.0/8"`, `"9.0.0.0"`,
			`line 8, overlays[0].subnet: "9.0.0.0" has no length; write it as in 9.0.0.0/8`},
		{"subnet too long", `"9.0.0.0/8"`, `"9.0.0.0/33"`,
			`line 8, overlays[0].subnet: "9.0.0.0/33" is not a subnet such as 9.0.0.0/8`},
		{"subnet cut short", `"9.0.0.0/8"`, `"9.0/8"`,
			`line 8, overlays[0].subnet: "9.0/8" is not a subnet such as 9.0.0.0/8`},
		{"subnet empty", `"9.0.0.0/8"`, `""`,
			`line 8, overlays[0].subnet: want a subnet such as 9.0.0.0/8, have ""`},
		{"subnet6 null", `"fd01:b::/64"`, "null",
			"line 9, overlays[1].subnet6: want a subnet such as fd01:b::/64, have nothing"},
		{"subnet a number", `"9.0.0.0/8"`, "9.0",
			"line 8, overlays[0].subnet: want a subnet such as 9.0.0.0/8, have 9.0"},
		{"prefix text", `"prefix": 24`, `"prefix": "24x"`,
			`line 8, overlays[0].prefix: want a whole number, have "24x"`},
		{"prefix text of digits", `"prefix": 24`, `"prefix": "24"`,
			`line 8, overlays[0].prefix: want a whole number, have "24"`},
		{"prefix a fraction", `"prefix": 24`, `"prefix": 24.5`,
			"line 8, overlays[0].prefix: want a whole number, have 24.5"},
		{"prefix octal", `"prefix": 24`, `"prefix": 024`,
			"line 8, overlays[0].prefix: want a whole number, have 024"},
		{"prefix a list", `"prefix": 24`, `"prefix": [24]`,
			"line 8, overlays[0].prefix: want a whole number, have a list"},
		{"prefix huge", `"prefix": 24`, `"prefix": 99999999999999999999`,
			"line 8, overlays[0].prefix: want a whole number, have 99999999999999999999"},
		{"prefix negative", `"prefix": 24`, `"prefix": -1`,
			"line 8, overlays[0].prefix: -1 is not a length in bits; it is the length of an agent's subnet, such as 24"},
		{"prefix zero", `"prefix": 24`, `"prefix": 0`,
			"line 8, overlays[0].prefix: is missing; it is the length of an agent's subnet, such as 24"},
		{"prefix longer than an address", `"prefix": 24`, `"prefix": 33`,
			"line 8, overlays[0].prefix: 33 is longer than an IPv4 address (32)"},
		{"prefix6 longer than an address", `"prefix6": 80`, `"prefix6": 129`,
			"line 9, overlays[1].prefix6: 129 is longer than an IPv6 address (128)"},
		{"prefix leaves no room", `"prefix": 24`, `"prefix": 30`,
			"line 8, overlays[0].prefix: 30 is too long; the longest is 29, for Mesos and Docker get half of an agent's subnet each, and a bridge with a container needs a /30"},
		{"prefix6 leaves no room", `"prefix6": 80`, `"prefix6": 126`,
			"line 9, overlays[1].prefix6: 126 is too long; the longest is 125, for Mesos and Docker get half of an agent's subnet each, and a bridge with a container needs a /126"},
		{"prefix as long as the subnet", `"prefix": 24`, `"prefix": 8`,
			"line 8, overlays[0].prefix: 8 is not longer than the 8 of subnet (9.0.0.0/8), which agents' subnets are cut out of"},
		{"prefix6 shorter than the subnet", `"prefix6": 80`, `"prefix6": 63`,
			"line 9, overlays[1].prefix6: 63 is not longer than the 64 of subnet6 (fd01:b::/64), which agents' subnets are cut out of"},
		{"Docker's part too long", `"prefix": 24`, `"prefix": 24, "docker_prefix": 31`,
			"line 8, overlays[0].docker_prefix: 31 is too long; the longest is 30, for a bridge with a container needs that"},
		{"Docker's part not longer", `"prefix": 24`, `"prefix": 24, "docker_prefix": 24`,
			"line 8, overlays[0].docker_prefix: 24 is not longer than the 24 of prefix; it is the length of Docker's part of an agent's subnet"},
		{"Docker's part of no family", `"prefix": 24`, `"prefix": 24, "docker_prefix6": 90`,
			"line 8, overlays[0].docker_prefix6: is given, though the overlay has no IPv6: there is no prefix6"},
		{"too many subnets", `"prefix": 24`, `"prefix": 24, "max_subnets": 33`,
			"line 8, overlays[0].max_subnets: 33 is not from 1 to 32; it is how many subnets one agent may hold, 8 if left out"},
		{"enabled text", `"prefix": 24`, `"prefix": 24, "enabled": "yes"`,
			`line 8, overlays[0].enabled: want true or false, have "yes"`},
		{"enabled a number", `"prefix": 24`, `"prefix": 24, "enabled": 1`,
			"line 8, overlays[0].enabled: want true or false, have 1"},
		{"overlays overlap", `"prefix": 24}`, `"prefix": 24}, {"name": "b", "subnet": "9.128.0.0/9", "prefix": 24}`,
			"line 8, overlays[1].subnet: 9.128.0.0/9 overlaps overlays[0].subnet (9.0.0.0/8)"},
		{"overlays overlap in IPv6", `"prefix": 24}`, `"prefix": 24, "subnet6": "fd01::/16", "prefix6": 80}`,
			"line 8, overlays[0].subnet6: fd01::/16 overlaps vtep_subnet6 (fd01:a::/64)\n" +
				"line 9, overlays[1].subnet6: fd01:b::/64 overlaps overlays[0].subnet6 (fd01::/16)"},
		{"overlay overlaps the VTEPs", `"9.0.0.0/8"`, `"44.0.0.0/8"`,
			"line 8, overlays[0].subnet: 44.0.0.0/8 overlaps vtep_subnet (44.128.0.0/20)"},
		{"overlay overlaps the VTEPs in IPv6", `"fd01:b::/64"`, `"fd01:a::/72"`,
			"line 9, overlays[1].subnet6: fd01:a::/72 overlaps vtep_subnet6 (fd01:a::/64)"},
		{"everything", `"9.0.0.0/8"`, `"0.0.0.0/0"`,
			"line 8, overlays[0].subnet: 0.0.0.0/0 overlaps 0.0.0.0/8, which is for unspecified addresses"},
		{"loopback", `"9.0.0.0/8"`, `"127.1.0.0/16"`,
			"line 8, overlays[0].subnet: 127.1.0.0/16 overlaps 127.0.0.0/8, which is for loopback"},
		{"multicast", `"9.0.0.0/8"`, `"239.0.0.0/8"`,
			"line 8, overlays[0].subnet: 239.0.0.0/8 overlaps 224.0.0.0/4, which is for multicast"},
		{"link-local", `"9.0.0.0/8"`, `"169.254.0.0/17"`,
			"line 8, overlays[0].subnet: 169.254.0.0/17 overlaps 169.254.0.0/16, which is for link-local addresses"},
		{"unspecified", `"9.0.0.0/8"`, `"0.0.0.0/8"`,
			"line 8, overlays[0].subnet: 0.0.0.0/8 overlaps 0.0.0.0/8, which is for unspecified addresses"},
		{"broadcast", `"9.0.0.0/8"`, `"255.0.0.0/8"`,
			"line 8, overlays[0].subnet: 255.0.0.0/8 overlaps 255.255.255.255/32, which is for broadcast"},
		{"loopback of IPv6", `"fd01:b::/64"`, `"::/127"`,
			"line 9, overlays[1].subnet6: ::/127 overlaps ::/128, which is for the unspecified address\n" +
				"line 9, overlays[1].prefix6: 80 is not longer than the 127 of subnet6 (::/127), which agents' subnets are cut out of"},
		{"multicast of IPv6", `"fd01:b::/64"`, `"ff05::/64"`,
			"line 9, overlays[1].subnet6: ff05::/64 overlaps ff00::/8, which is for multicast"},
		{"link-local of IPv6", `"fd01:b::/64"`, `"fe80::/64"`,
			"line 9, overlays[1].subnet6: fe80::/64 overlaps fe80::/10, which is for link-local addresses"},
		{"vtep_subnet missing", `"vtep_subnet": "44.128.0.0/20",`, "",
			"line 3, vtep_subnet: is missing; it is the range that agents get their VTEP's address from, such as 44.128.0.0/20"},
		{"vtep_subnet IPv6", `"44.128.0.0/20"`, `"fd01:c::/64"`,
			"line 4, vtep_subnet: fd01:c::/64 is not an IPv4 subnet such as 9.0.0.0/8"},
		{"vtep_subnet with host bits", `"44.128.0.0/20"`, `"44.128.0.1/20"`,
			"line 4, vtep_subnet: 44.128.0.1/20 has bits set after its first 20; write 44.128.0.0/20"},
		{"vtep_subnet too wide", `"44.128.0.0/20"`, `"44.0.0.0/7"`,
			"line 4, vtep_subnet: 44.0.0.0/7 is wider than /8; a VTEP's MAC is made of the last 24 bits of its address, so two VTEPs could get one MAC"},
		{"vtep_subnet too small", `"44.128.0.0/20"`, `"44.128.0.0/31"`,
			"line 4, vtep_subnet: 44.128.0.0/31 has no room for two VTEPs; the longest is /30"},
		{"vtep_subnet loopback", `"44.128.0.0/20"`, `"127.0.0.0/20"`,
			"line 4, vtep_subnet: 127.0.0.0/20 overlaps 127.0.0.0/8, which is for loopback"},
		{"vtep_subnet without length", `"44.128.0.0/20"`, `"44.128.0.0"`,
			`line 4, vtep_subnet: "44.128.0.0" has no length; write it as in 9.0.0.0/8`},
		{"vtep_subnet6 missing", `"vtep_subnet6": "fd01:a::/64",`, "",
			"line 3, vtep_subnet6: is missing, though overlays[1] has subnet6; it is the range that agents get their VTEP's IPv6 address from, such as fd01:a::/64"},
		{"vtep_subnet6 IPv4", `"fd01:a::/64"`, `"45.0.0.0/8"`,
			"line 5, vtep_subnet6: 45.0.0.0/8 is not an IPv6 subnet such as fd01:b::/64"},
		{"vtep_subnet6 too small", `"fd01:a::/64"`, `"fd01:a::/127"`,
			"line 5, vtep_subnet6: fd01:a::/127 has no room for two VTEPs; the longest is /126"},
		{"vtep_mac_oui missing", `"vtep_mac_oui": "70:B3:D5:00:00:00",`, "",
			"line 3, vtep_mac_oui: is missing; it is the first half of every VTEP's MAC, such as 70:B3:D5:00:00:00"},
		{"vtep_mac_oui not a MAC", `"70:B3:D5:00:00:00"`, `"70:B3:D5"`,
			`line 6, vtep_mac_oui: "70:B3:D5" is not of the form 70:B3:D5:00:00:00`},
		{"vtep_mac_oui with dashes", `"70:B3:D5:00:00:00"`, `"70-B3-D5-00-00-00"`,
			`line 6, vtep_mac_oui: "70-B3-D5-00-00-00" is not of the form 70:B3:D5:00:00:00`},
		{"vtep_mac_oui of eight bytes", `"70:B3:D5:00:00:00"`, `"70:B3:D5:00:00:00:00:00"`,
			`line 6, vtep_mac_oui: "70:B3:D5:00:00:00:00:00" is not of the form 70:B3:D5:00:00:00`},
		{"vtep_mac_oui with a low byte", `"70:B3:D5:00:00:00"`, `"70:B3:D5:00:00:01"`,
			`line 6, vtep_mac_oui: "70:B3:D5:00:00:01" must end in 00:00:00; the VTEP's address is put there`},
		{"vtep_mac_oui of a group", `"70:B3:D5:00:00:00"`, `"71:B3:D5:00:00:00"`,
			`line 6, vtep_mac_oui: "71:B3:D5:00:00:00" is a group address; its first byte must be even`},
		{"vtep_mtu too small for IPv6", `"vtep_mac_oui"`, `"vtep_mtu": 1279, "vtep_mac_oui"`,
			"line 6, vtep_mtu: 1279 is less than 1280, which IPv6 needs; leave it out to have it from the underlay"},
		{"vtep_mtu too small", "", `{"vtep_subnet": "44.128.0.0/20", "vtep_mac_oui": "70:B3:D5:00:00:00", "vtep_mtu": 575, "overlays": [{"name": "a", "subnet": "9.0.0.0/8", "prefix": 24}]}`,
			"line 1, vtep_mtu: 575 is less than 576, which every IPv4 host takes; leave it out to have it from the underlay"},
		{"vtep_mtu too big", `"vtep_mac_oui"`, `"vtep_mtu": 65536, "vtep_mac_oui"`,
			"line 6, vtep_mtu: 65536 is more than 65535, the longest IP packet; leave it out to have it from the underlay"},
		{"vtep_mtu text", `"vtep_mac_oui"`, `"vtep_mtu": "1500", "vtep_mac_oui"`,
			`line 6, vtep_mtu: want a whole number, have "1500"`},
		{"all at once, by line", "", "overlays:\n- {name: host, subnet: 10.0.0.1/8, prefix: 31}\n- name: a b\n  subnet6: fd01::/64\n  prefix6: many\n  colour: red\nvtep_subnet: 10.1.0.0/16\nvtep_mac_oui: 01:00:00:00:00:00\n",
			"line 1, vtep_subnet6: is missing, though overlays[1] has subnet6; it is the range that agents get their VTEP's IPv6 address from, such as fd01:a::/64\n" +
				"line 2, overlays[0].name: \"host\" is one of the names that Docker keeps for itself (host, bridge, default, none)\n" +
				"line 2, overlays[0].subnet: 10.0.0.1/8 has bits set after its first 8; write 10.0.0.0/8\n" +
				"line 2, overlays[0].subnet: 10.0.0.0/8 overlaps vtep_subnet (10.1.0.0/16)\n" +
				"line 2, overlays[0].prefix: 31 is too long; the longest is 29, for Mesos and Docker get half of an agent's subnet each, and a bridge with a container needs a /30\n" +
				"line 3, overlays[1].name: \"a b\" holds ' '; a name holds letters and digits of ASCII, \"-\", \"_\" and \".\" only\n" +
				"line 5, overlays[1].prefix6: want a whole number, have \"many\"\n" +
				"line 6, overlays[1].colour: there is no such field; there are name, subnet, prefix, subnet6, prefix6, enabled, max_subnets, docker_prefix, docker_prefix6, isolated, static_subnet, static_subnet6, static_takeover\n" +
				"line 8, vtep_mac_oui: \"01:00:00:00:00:00\" is a group address; its first byte must be even"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := []byte(tt.new)
			if tt.old != "" {
				data = edit(t, tt.old, tt.new)
			}
			n, err := Parse(data)
			var problems network.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %+v and error %v, want problems", n, err)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestParseGivesColumns(t *testing.T) {
	_, err := Parse(edit(t, `"prefix": 24`, `"prefix": 33`))
	var problems network.Problems
	if !errors.As(err, &problems) || len(problems) != 1 {
		t.Fatalf("got %v, want one problem", err)
	}
	want := network.Problem{Path: "overlays[0].prefix", Line: 8, Column: 57, Message: "33 is longer than an IPv4 address (32)"}
	if problems[0] != want {
		t.Errorf("got %#v, want %#v", problems[0], want)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"master.json", "overlay-config.json", "config.yaml", "agent.json", "agent-master.json"} {
		f.Add(sample(f, name))
	}
	f.Add([]byte("vtep_subnet: &a 44.0.0.0/8\noverlays: [{name: x, subnet: *a, enabled: true}, {<<: *a}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := Parse(data)
		if err != nil {
			var problems network.Problems
			if !errors.As(err, &problems) || len(problems) == 0 || err.Error() == "" {
				t.Fatalf("the error is %#v, which is no list of problems", err)
			}
			return
		}
		written, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(written)
		if err != nil {
			t.Fatalf("%s, which Parse gave, is refused: %v", written, err)
		}
		if !reflect.DeepEqual(again, n) {
			t.Fatalf("got %+v, then %+v", n, again)
		}
	})
}
