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
	} {
		_, err := Parse([]byte(tt.conf), tt.args)
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != tt.code || !strings.Contains(coded.Msg, tt.says) {
			t.Errorf("%s %s: got %v, want code %d and %q", tt.conf, tt.args, err, tt.code, tt.says)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"dcos","ipam":{"type":"dcos-ipam","routes":[{"dst":"0.0.0.0/0"}]}}`), "IP=9.0.1.5;MAC=02:00:00:00:00:02")
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		c, err := Parse(conf, args)
		if err == nil && (c.Overlay == "" || strings.Contains(c.Overlay, "/")) {
			t.Errorf("overlay %q got through", c.Overlay)
		}
	})
}
