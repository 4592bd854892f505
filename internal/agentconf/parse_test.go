package agentconf

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/lease"
)

func defaults() Config {
	return Config{
		Master:   []string{DefaultMaster},
		Network:  lease.DefaultNetworkConfig(),
		StateDir: DefaultStateDir,
		RunDir:   DefaultRunDir,

		VTEPTxOffload: true,
		VXLANFilter:   true,
	}
}

func TestParse(t *testing.T) {
	agent, err := os.ReadFile("testdata/agent.json")
	if err != nil {
		t.Fatal(err)
	}
	agentMaster, err := os.ReadFile("testdata/agent-master.json")
	if err != nil {
		t.Fatal(err)
	}
	dcos := func(bridges bool) Config {
		c := defaults()
		c.CNIDir = "/opt/mesosphere/etc/dcos/network/cni"
		c.CNIDataDir = "/var/run/dcos/cni/networks"
		c.Network.OverlayMTU = 1420
		c.Network.MesosBridge, c.Network.DockerBridge = bridges, bridges
		c.MaxConfigurationAttempts = 4
		return c
	}
	tests := []struct {
		name string
		data string
		want Config
	}{
		{"agent.json of DC/OS", string(agent), dcos(true)},
		{"agent-master.json of DC/OS", string(agentMaster), dcos(false)},
		{"nothing set", `{}`, defaults()},
		{"null is absent", `{"master": null, "ip": null, "network_config": null, "vtep_tx_offload": null, "vxlan_filter": null, "state_dir": null}`, defaults()},
		{"all set", `{
			"master": ["10.0.0.1", "https://c.example/"],
			"ip": "10.10.0.117",
			"network_config": {"allocate_subnet": false, "overlay_mtu": 576, "enable_ipv6": false, "keep_halves": false},
			"vtep_tx_offload": false, "vxlan_filter": false,
			"state_dir": "/s/", "run_dir": "/r", "cni_dir": "/c", "cni_data_dir": "/d/../e",
			"max_configuration_attempts": 0,
			"ca_file": "/ca", "cert_file": "/cert", "key_file": "/key"
		}`, Config{
			Master:   []string{"http://10.0.0.1:64001", "https://c.example:64001"},
			IP:       netip.MustParseAddr("10.10.0.117"),
			Network:  lease.NetworkConfig{MesosBridge: true, DockerBridge: true, OverlayMTU: 576},
			StateDir: "/s", RunDir: "/r", CNIDir: "/c", CNIDataDir: "/e",
			CAFile: "/ca", CertFile: "/cert", KeyFile: "/key",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.data))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestParseUnderlay(t *testing.T) {
	c, err := Parse([]byte(`{"ip": "::ffff:10.0.0.1"}`))
	if err != nil || c.IP != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("ip: got %v, %v", c.IP, err)
	}
	c, err = Parse([]byte(`{"interface": "enp0s31f6.4094"}`))
	if err != nil || c.Interface != "enp0s31f6.4094" {
		t.Errorf("interface: got %q, %v", c.Interface, err)
	}
	c, err = Parse([]byte(`{"ip_cidr": "10.10.0.117/16"}`))
	if err != nil || c.IPCIDR != netip.MustParsePrefix("10.10.0.0/16") {
		t.Errorf("ip_cidr: got %v, %v", c.IPCIDR, err)
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct{ name, data, want string }{
		{"empty", " \n", "the file is empty; {} stands for the defaults"},
		{"no object", `[]`, "want an object in braces"},
		{"null", `null`, "want an object in braces"},
		{"no JSON", "{\n\"ip\": 1\n\"master\": 2}", `line 3: this is not JSON: invalid character '"' after object key:value pair`},
		{"YAML", "ip: 10.0.0.1", "line 1: this is not JSON: invalid character 'i' looking for beginning of value"},
		{"cut short", "{\n\"ip\": ", "line 2: this is not JSON: unexpected end of JSON input"},
		{"more behind", "{}\n{}", "line 2: this is not JSON: invalid character '{' after top-level value"},
		{"unknown field", "{\n\"mastr\": \"x\"}", "line 2: mastr: there is no such field; there are master, ip, interface, ip_cidr, network_config, vtep_tx_offload, vxlan_filter, state_dir, run_dir, cni_dir, cni_data_dir, max_configuration_attempts, ca_file, cert_file, key_file"},
		{"wrong case", `{"IP": "10.0.0.1"}`, "line 1: IP: there is no such field; there are master, ip, interface, ip_cidr, network_config, vtep_tx_offload, vxlan_filter, state_dir, run_dir, cni_dir, cni_data_dir, max_configuration_attempts, ca_file, cert_file, key_file"},
		{"the network's configuration", `{"vtep_subnet": "44.128.0.0/20"}`, "line 1: vtep_subnet: this is the network's configuration, which the coordinator takes with --config; an agent's has master, ip, interface, ip_cidr, network_config, vtep_tx_offload, vxlan_filter, state_dir, run_dir, cni_dir, cni_data_dir, max_configuration_attempts, ca_file, cert_file, key_file"},
		{"given twice", "{\"ip\": \"10.0.0.1\",\n\"ip\": \"10.0.0.2\"}", "line 2: ip: is given twice"},
		{"text expected", "{\"cni_dir\":\n 1}", "line 1: cni_dir: want text, have number"},
		{"number expected", `{"max_configuration_attempts": "4"}`, "line 1: max_configuration_attempts: want a whole number, have string"},
		{"whole number expected", `{"max_configuration_attempts": 1.5}`, "line 1: max_configuration_attempts: want a whole number, have number 1.5"},
		{"attempts negative", `{"max_configuration_attempts": -1}`, "max_configuration_attempts: -1 is negative"},
		{"object expected", `{"network_config": []}`, "line 1: network_config: want an object, have array"},
		{"bool expected", `{"network_config": {"mesos_bridge": 1}}`, "line 1: network_config: mesos_bridge: want true or false, have number"},
		{"unknown field in network_config", `{"network_config": {"mtu": 1}}`, `line 1: network_config: there is no field "mtu" in it; there are allocate_subnet, mesos_bridge, docker_bridge, overlay_mtu, enable_ipv6, keep_halves`},
		{"MTU negative", `{"network_config": {"overlay_mtu": -1}}`, "network_config.overlay_mtu: -1 is less than 576, which every IPv4 host takes; leave it out to have it from the underlay"},
		{"MTU too small for IPv6", `{"network_config": {"overlay_mtu": 1279}}`, "network_config.overlay_mtu: 1279 is less than 1280, which IPv6 needs; make it larger, or set enable_ipv6 to false"},
		{"MTU too large", `{"network_config": {"overlay_mtu": 65536}}`, "network_config.overlay_mtu: 65536 is more than 65535, the longest IP packet; leave it out to have it from the underlay"},
		{"relative path", `{"state_dir": "lib"}`, `state_dir: "lib" is not an absolute path`},
		{"key without certificate", `{"key_file": "/k"}`, "cert_file and key_file: one is of no use without the other; set both or none"},
		{"ip no address", `{"ip": "eth0"}`, `ip: "eth0" is not a host's address such as 10.10.0.117`},
		{"ip unspecified", `{"ip": "0.0.0.0"}`, `ip: "0.0.0.0" is not a host's address such as 10.10.0.117`},
		{"ip multicast", `{"ip": "ff02::1"}`, `ip: "ff02::1" is not a host's address such as 10.10.0.117`},
		{"ip with a zone", `{"ip": "fe80::1%eth0"}`, `ip: "fe80::1%eth0" is not a host's address such as 10.10.0.117`},
		{"interface too long", `{"interface": "abcdefghijklmnop"}`, `interface: "abcdefghijklmnop" is not the name of a network device such as eth0`},
		{"ip_cidr no range", `{"ip_cidr": "10.0.0.1"}`, `ip_cidr: "10.0.0.1" is not an address range such as 10.10.0.0/16`},
		{"two choices", `{"ip": "10.0.0.1", "interface": "eth0"}`, "ip, interface and ip_cidr: at most one of them may be set, for each chooses the underlay's address"},
		{"master a number", `{"master": 1}`, "line 1: master: want a coordinator's address, such as 10.10.0.120:64001, or a list of them"},
		{"master list of numbers", `{"master": ["a", 1]}`, "line 1: master: want a coordinator's address, such as 10.10.0.120:64001, or a list of them"},
		{"master empty list", `{"master": []}`, "master: the list is empty; name a coordinator, or leave the field out for one on this machine"},
		{"master empty", `{"master": ""}`, `master: "" is not an address; write it as in 10.10.0.120:64001 or https://coordinator.example:64001`},
		{"master null in a list", `{"master": ["a", null]}`, `master: "" is not an address; write it as in 10.10.0.120:64001 or https://coordinator.example:64001`},
		{"master of Mesos", `{"master": "zk://10.0.0.1:2181/mesos"}`, `master: "zk://10.0.0.1:2181/mesos" is of kind zk; a coordinator's address begins with http:// or https://, or has no such beginning`},
		{"master with a word for a port", `{"master": "a:b"}`, `master: "a:b" is not an address: invalid port ":b" after host`},
		{"master with port 0", `{"master": "a:0"}`, `master: "a:0" has port 0; a port is a number from 1 to 65535`},
		{"master with a large port", `{"master": "a:65536"}`, `master: "a:65536" has port 65536; a port is a number from 1 to 65535`},
		{"master without a host", `{"master": ":64001"}`, `master: ":64001" has no host that is a name or an address`},
		{"master with a comma", `{"master": "a,b"}`, `master: "a,b" has no host that is a name or an address`},
		{"master with a query", `{"master": "http://a/?x=1"}`, `master: "http://a/?x=1" has more than a scheme, a host, a port and a path`},
		{"master with a fragment", `{"master": "http://a/#"}`, `master: "http://a/#" has more than a scheme, a host, a port and a path`},
		{"master with a password", `{"master": "http://u:p@a"}`, `master: "http://u:p@a" has more than a scheme, a host, a port and a path`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse([]byte(tt.data))
			if err == nil {
				t.Fatalf("got %+v and no error", c)
			}
			if err.Error() != tt.want {
				t.Errorf("got\n%s\nwant\n%s", err, tt.want)
			}
		})
	}
}

func TestParseMaster(t *testing.T) {
	tests := map[string]string{
		"10.0.0.1":                   "http://10.0.0.1:64001",
		"10.0.0.1:80":                "http://10.0.0.1:80",
		"leader.mesos":               "http://leader.mesos:64001",
		"coordinator_1:1":            "http://coordinator_1:1",
		"http://a":                   "http://a:64001",
		"http://a:1/":                "http://a:1",
		"https://a":                  "https://a:64001",
		"https://a:443/overlay/":     "https://a:443/overlay",
		"::1":                        "http://[::1]:64001",
		"fd00::1":                    "http://[fd00::1]:64001",
		"[fd00::1]":                  "http://[fd00::1]:64001",
		"[fd00::1]:80":               "http://[fd00::1]:80",
		"https://[fd00::1]":          "https://[fd00::1]:64001",
		"fe80::1%eth0":               "http://[fe80::1%25eth0]:64001",
		"http://[fe80::1%25eth0]:80": "http://[fe80::1%25eth0]:80",
	}
	for in, want := range tests {
		c, err := Parse([]byte(`{"master": "` + in + `"}`))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if !reflect.DeepEqual(c.Master, []string{want}) {
			t.Errorf("%s: got %q, want %q", in, c.Master, want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	absent := filepath.Join(dir, "absent.json")
	bad := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(bad, []byte(`{"ip": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}

	c, err := Load("testdata/agent.json")
	if err != nil || c.Path != "testdata/agent.json" || c.Network.OverlayMTU != 1420 {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := Load(absent); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), absent) {
		t.Errorf("an absent file: got %v", err)
	}
	if c, err := load(absent, true); err != nil || !reflect.DeepEqual(c, defaults()) {
		t.Errorf("an absent file that may be absent: got %+v, %v", c, err)
	}
	if _, err := load(dir, true); err == nil {
		t.Error("a directory is taken for an absent file")
	}
	want := "agent's configuration " + bad + ": line 1: ip: want text, have number"
	if _, err := Load(bad); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"agent.json", "agent-master.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"master": ["[fe80::1%25a]:1", "https://a/b"], "ip_cidr": "fd00::/8"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			return
		}
		if len(c.Master) == 0 || c.StateDir == "" || c.RunDir == "" || c.DataDir() == "" {
			t.Fatalf("a default is missing in %+v", c)
		}
		for _, master := range c.Master {
			again, err := baseURL(master)
			if err != nil || again != master {
				t.Fatalf("%q becomes %q, %v", master, again, err)
			}
		}
	})
}
