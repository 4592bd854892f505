package cniconf

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// usual is what Mesos's isolator asks for.
const usual = `{"cniVersion":"0.2.0","name":"dcos","type":"dcos-overlay","overlay":"o","agentConfig":"/a.json","mapPorts":false,
	"ipam":{"type":"dcos-ipam","overlay":"o","agentConfig":"/b.json"},
	"args":{"org.apache.mesos":{"network_info":{"name":"dcos","ip_addresses":[{"ip_address":"9.0.0.7","protocol":"IPv4"},{}]}}}}`

func TestUsualIsPlain(t *testing.T) {
	if !plainjson.Parse([]byte(usual)).Plain() {
		t.Error("what Mesos asks for is read slowly")
	}
	same(t, usual)
}

// same wants a configuration to be read as encoding/json does.
func same(t *testing.T, text string) {
	var gotID, wantID identity
	gotErr, wantErr := gotID.read([]byte(text)), json.Unmarshal([]byte(text), &wantID)
	if (gotErr == nil) != (wantErr == nil) || wantErr == nil && !reflect.DeepEqual(gotID, wantID) {
		t.Errorf("%s\ngot  %+v, %v\nwant %+v, %v", text, gotID, gotErr, wantID, wantErr)
	}
	var got, want wishes
	gotErr, wantErr = got.read([]byte(text)), json.Unmarshal([]byte(text), &want)
	if (gotErr == nil) != (wantErr == nil) || wantErr == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%s\ngot  %+v, %v\nwant %+v, %v", text, got, gotErr, want, wantErr)
	}
	var r struct {
		IPAM map[string]json.RawMessage `json:"ipam"`
	}
	wantErr = json.Unmarshal([]byte(text), &r)
	has, gotErr := ipamFields([]byte(text))
	if (gotErr == nil) != (wantErr == nil) {
		t.Errorf("%s: fields of ipam: %v, want %v", text, gotErr, wantErr)
	}
	for _, name := range []string{"type", "ranges", "dataDir"} {
		if _, want := r.IPAM[name]; wantErr == nil && has(name) != want {
			t.Errorf("%s: ipam has %s: %t", text, name, !want)
		}
	}
}

// FuzzPlain: whatever a runtime sends, it is read as encoding/json does.
func FuzzPlain(f *testing.F) {
	for _, text := range []string{
		usual, `{}`, `[]`, `null`, `{"name":"x","Name":"y"}`, `{"NAME":"x"}`, `{"name":null}`, `{"name":7}`, `{"ipam":{"ranges":[],"dataDir":"/x"}}`, `{"ipam":null}`, `{"ipam":[]}`,
		`{"dns":{},"runtimeConfig":{"ips":["9.0.0.1"]}}`, `{"args":{"cni":{"ips":["9.0.0.1"]}}}`, `{"args":{"org.apache.mesos":{"network_info":{"labels":{"labels":[{"key":"a"}]}}}}}`,
		`{"args":{"org.apache.mesos":{"network_info":{"ip_addresses":[]}}}}`, `{"args":7}`, `{"mapPorts":null}`, `{"ipam":{"routes":[{"dst":"x"}]}}`, `{"name":"\u0041"}`, `{"name":"x"}}`,
	} {
		f.Add(text)
	}
	f.Fuzz(same)
}
