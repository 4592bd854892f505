package cniconf

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func TestMesosConfiguration(t *testing.T) {
	data, err := os.ReadFile("testdata/mesos-add-config.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(data, "")
	if err != nil {
		t.Fatal(err)
	}
	ports := []Port{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}, {HostPort: 8053, ContainerPort: 53, Protocol: "udp"}}
	if !slices.Equal(c.Ports, ports) {
		t.Errorf("the port mappings are %v", c.Ports)
	}
	if c.Overlay != "dcos" || c.CNIVersion != "0.2.0" || c.IPAMType != TypeIPAM || len(c.Addresses) != 0 {
		t.Errorf("got %+v", c)
	}
}

func TestOverlayIsFound(t *testing.T) {
	for conf, want := range map[string]string{
		`{"name":"dcos"}`: "dcos",
		`{"name":"a-long-network-name","overlay":"dcos"}`:              "dcos",
		`{"name":"bridged","type":"bridge","ipam":{"overlay":"dcos"}}`: "dcos",
	} {
		c, err := Parse([]byte(conf), "")
		if err != nil || c.Overlay != want {
			t.Errorf("%s: got %+v, %v", conf, c, err)
		}
	}
}

func TestRequestedAddresses(t *testing.T) {
	for _, tt := range []struct{ conf, args string }{
		{`{"name":"dcos","runtimeConfig":{"ips":["9.0.1.5/25","fd01::5"]}}`, ""},
		{`{"name":"dcos","args":{"cni":{"ips":["9.0.1.5","fd01::5/64"]}}}`, ""},
		{`{"name":"dcos","args":{"org.apache.mesos":{"network_info":{"ip_addresses":[{"protocol":"IPv4","ip_address":"9.0.1.5"},{"ip_address":"fd01::5"}]}}}}`, ""},
		{`{"name":"dcos"}`, "IgnoreUnknown=1;IP=9.0.1.5,fd01::5;K8S_POD_NAME=x"},
	} {
		c, err := Parse([]byte(tt.conf), tt.args)
		want := []netip.Addr{netip.MustParseAddr("9.0.1.5"), netip.MustParseAddr("fd01::5")}
		if err != nil || !slices.Equal(c.Addresses, want) {
			t.Errorf("%s %s: got %+v, %v", tt.conf, tt.args, c, err)
		}
	}
}

func TestLabels(t *testing.T) {
	for _, tt := range []struct{ conf, args, want string }{
		{`{"name":"dcos","args":{"org.apache.mesos":{"network_info":{"labels":{"labels":[{"key":"role","value":"db"},{"key":"x"}]}}}}}`, "", "role=db x"},
		{`{"name":"dcos","args":{"cni":{"labels":[{"key":"role","value":"db"},{"key":"x"}]}}}`, "", "role=db x"},
		{`{"name":"dcos"}`, "LABEL=role=db,x", "role=db x"},
		{`{"name":"dcos","args":{"cni":{"labels":{"role":"db"}}}}`, "", ""},
		{`{"name":"dcos","args":{"cni":{"labels":"role=db"}}}`, "", ""},
		{`{"name":"dcos"}`, "", ""},
	} {
		c, err := Parse([]byte(tt.conf), tt.args)
		if err != nil || strings.Join(c.Labels, " ") != tt.want {
			t.Errorf("%s %s: got %+v, %v", tt.conf, tt.args, c, err)
		}
	}
}

func TestMAC(t *testing.T) {
	c, err := Parse([]byte(`{"name":"dcos","runtimeConfig":{"mac":"02:00:00:00:00:01"}}`), "MAC=02:00:00:00:00:02")
	if err != nil || c.MAC.String() != "02:00:00:00:00:01" {
		t.Errorf("got %v, %v; runtimeConfig goes before CNI_ARGS", c.MAC, err)
	}
}

func TestBadInput(t *testing.T) {
	for _, tt := range []struct {
		conf, args string
		code       uint
		says       string
	}{
		{`{`, "", types.ErrDecodingFailure, "read the CNI configuration"},
		{`{"name":7}`, "", types.ErrDecodingFailure, "name"},
		{`{"type":"dcos-overlay"}`, "", types.ErrInvalidNetworkConfig, `set "name" or "overlay"`},
		{`{"name":"a-name-that-is-too-long"}`, "", types.ErrInvalidNetworkConfig, "13 characters"},
		{`{"name":"x","overlay":"../etc"}`, "", types.ErrInvalidNetworkConfig, "slash"},
		{`{"name":"x","ipam":{"routes":[{"dst":"all"}]}}`, "", types.ErrInvalidNetworkConfig, `"all" is no subnet`},
		{`{"name":"x"}`, "IP=everywhere", types.ErrInvalidNetworkConfig, `"everywhere"`},
		{`{"name":"x","runtimeConfig":{"mac":"zz"}}`, "", types.ErrInvalidNetworkConfig, `"zz" is not a MAC`},
		{`{"name":"x","runtimeConfig":{"mac":"01:00:5e:00:00:01"}}`, "", types.ErrInvalidNetworkConfig, "a group's"},
		{`{"name":"x","ipam":{"type":"../sh"}}`, "", types.ErrInvalidNetworkConfig, "slash"},
		{`{"name":"x","ipam":{"subnet":"10.0.0.0/24"}}`, "", types.ErrInvalidNetworkConfig, "ipam.subnet"},
		{`{"name":"x","ipam":{"ranges":[[{"subnet":"10.0.0.0/24"}]]}}`, "", types.ErrInvalidNetworkConfig, "leased of overlay x"},
		{`{"name":"x","ipam":{"type":"host-local","rangeStart":"10.0.0.5"}}`, "", types.ErrInvalidNetworkConfig, "ipam.rangeStart"},
		{`{"name":"x","ipam":{"type":"host-local","dataDir":"/tmp"}}`, "", types.ErrInvalidNetworkConfig, "cni_data_dir"},
		{`{"name":"x","ipam":{"resolvConf":"/etc/resolv.conf"}}`, "", types.ErrInvalidNetworkConfig, `set "dns"`},
		{`{"name":"x","runtimeConfig":{"portMappings":[{"hostPort":70000,"containerPort":1}]}}`, "", types.ErrInvalidNetworkConfig, "70000 to 1/tcp"},
		{`{"name":"x","args":{"org.apache.mesos":{"network_info":{"port_mappings":[{"host_port":80,"container_port":0}]}}}}`, "", types.ErrInvalidNetworkConfig, "1 to 65535"},
		{`{"name":"x","runtimeConfig":{"portMappings":[{"hostPort":7,"containerPort":1,"protocol":"icmp"}]}}`, "", types.ErrInvalidNetworkConfig, "tcp, udp or sctp"},
		{`{"name":"x","runtimeConfig":{"portMappings":[{"hostPort":7,"containerPort":1,"hostIP":"here"}]}}`, "", types.ErrInvalidNetworkConfig, `"here"`},
	} {
		_, err := Parse([]byte(tt.conf), tt.args)
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != tt.code || !strings.Contains(coded.Msg, tt.says) {
			t.Errorf("%s %s: got %v, want code %d and %q", tt.conf, tt.args, err, tt.code, tt.says)
		}
	}
}

func TestPorts(t *testing.T) {
	const both = `"args":{"org.apache.mesos":{"network_info":{"port_mappings":[{"host_port":80,"container_port":8080}]}}},
		"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"TCP"},{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"::1"}]}`
	c, err := Parse([]byte(`{"name":"dcos",`+both+`}`), "")
	want := []Port{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}, {HostPort: 53, ContainerPort: 53, Protocol: "udp", HostIP: "::1"}}
	if err != nil || !slices.Equal(c.Ports, want) {
		t.Errorf("got %v, %v", c, err)
	}
	c, err = Parse([]byte(`{"name":"dcos","mapPorts":false,`+both+`}`), "")
	if err != nil || len(c.Ports) != 0 {
		t.Errorf("with mapPorts false: %v, %v", c, err)
	}
}

// TestIdentifyOverlooksMistakes: what an ADD was refused for is no reason to
// refuse the DEL.
func TestIdentifyOverlooksMistakes(t *testing.T) {
	for _, conf := range []string{
		`{"name":"dcos","ipam":{"ranges":[]}}`,
		`{"name":"dcos","args":7}`,
		`{"name":"dcos","dns":"none"}`,
		`{"name":"dcos","runtimeConfig":{"mac":"zz","portMappings":[{"hostPort":-1}]}}`,
	} {
		if _, err := Parse([]byte(conf), ""); err == nil {
			t.Errorf("Parse accepts %s", conf)
		}
		if c, err := Identify([]byte(conf)); err != nil || c.Overlay != "dcos" || len(c.Ports) != 0 {
			t.Errorf("Identify of %s: %+v, %v", conf, c, err)
		}
	}
}

func TestAttachments(t *testing.T) {
	a, b := types.GCAttachment{ContainerID: "a", IfName: "eth0"}, types.GCAttachment{ContainerID: "b", IfName: "eth1"}
	for conf, want := range map[string][]types.GCAttachment{
		`{"name":"dcos","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}`:                                                             {a},
		`{"name":"dcos","cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}]}`:                                                                   {a},
		`{"name":"dcos","cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/valid-attachments":[{"containerID":"b","ifname":"eth1"}]}`: {a, b},
		`{"name":"dcos","cni.dev/valid-attachments":null}`:                                                                                              {},
		`{"name":"dcos","cni.dev/valid-attachments":[]}`:                                                                                                {},
	} {
		c, err := Identify([]byte(conf))
		if err != nil {
			t.Fatal(err)
		}
		valid, told, err := c.Attachments()
		if err != nil || !told || len(valid) != len(want) {
			t.Errorf("%s: %v, %v, %v", conf, valid, told, err)
		}
		for _, w := range want {
			if !valid[w] {
				t.Errorf("%s: %v is not valid", conf, w)
			}
		}
	}
	c, err := Identify([]byte(`{"name":"dcos"}`))
	if err != nil {
		t.Fatal(err)
	}
	if valid, told, err := c.Attachments(); told || err != nil {
		t.Errorf("without list: %v, %v, %v", valid, told, err)
	}
	if c, err = Identify([]byte(`{"name":"dcos","cni.dev/attachments":7}`)); err != nil {
		t.Fatal(err)
	}
	if valid, _, err := c.Attachments(); err == nil {
		t.Errorf("with a number for a list: %v", valid)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"dcos","ipam":{"type":"dcos-ipam","routes":[{"dst":"0.0.0.0/0"}]}}`), "IP=9.0.1.5;MAC=02:00:00:00:00:02")
	f.Add([]byte(`{"name":"dcos","runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}],"ips":["9.0.1.5/25"],"mac":"02:00:00:00:00:01"}}`), "")
	f.Add([]byte(`{"name":"dcos","cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/valid-attachments":null}`), "IgnoreUnknown=1")
	if data, err := os.ReadFile("testdata/mesos-add-config.json"); err == nil {
		f.Add(data, "")
	}
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		c, err := Parse(conf, args)
		found, identifyErr := Identify(conf)
		if err == nil && (identifyErr != nil || c.Overlay != found.Overlay || !slices.Equal(c.Ports, found.Ports)) {
			t.Errorf("what ADD understands DEL does not: %+v, %+v, %v", c, found, identifyErr)
		}
		if identifyErr == nil {
			if found.Overlay == "" || strings.ContainsAny(found.Overlay+found.IPAMType, "/\x00") {
				t.Errorf("overlay %q, IPAM %q got through", found.Overlay, found.IPAMType)
			}
			if _, _, err := found.Attachments(); err != nil && !errors.As(err, new(*types.Error)) {
				t.Errorf("an error without code: %v", err)
			}
		}
		for _, err := range []error{err, identifyErr} {
			if err != nil && !errors.As(err, new(*types.Error)) {
				t.Errorf("an error without code: %v", err)
			}
		}
	})
}
