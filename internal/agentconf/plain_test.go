package agentconf

import (
	"errors"
	"reflect"
	"testing"
)

const plainFile = `{"master":["10.0.0.1","https://c.example/"],"ip":"10.10.0.117","interface":"eth0","ip_cidr":"10.0.0.0/8",
	"network_config":{"allocate_subnet":false,"overlay_mtu":576,"enable_ipv6":false},"vtep_tx_offload":false,"vxlan_filter":false,
	"state_dir":"/s","run_dir":"/r","cni_dir":"/c","cni_data_dir":"/d","max_configuration_attempts":7,"ca_file":"/a","cert_file":"/b","key_file":"/k"}`

// TestPlainFile: a file with every field is read without encoding/json.
func TestPlainFile(t *testing.T) {
	f := newFile()
	if !f.readPlain([]byte(plainFile)) {
		t.Error("it is read slowly: tell readPlain of new fields")
	}
	for _, field := range f.fields() {
		if at := newFile(); reflect.DeepEqual(reflect.ValueOf(field.value).Elem().Interface(), reflect.ValueOf(fieldOf(at, field.name)).Elem().Interface()) {
			t.Errorf("%s is as it would be without the file", field.name)
		}
	}
}

func fieldOf(f *file, name string) any {
	for _, field := range f.fields() {
		if field.name == name {
			return field.value
		}
	}
	return nil
}

// FuzzPlainFile: what is read without encoding/json is what is read with it.
func FuzzPlainFile(f *testing.F) {
	for _, text := range []string{
		plainFile, `{}`, `{"master":"a"}`, `{"master":[]}`, `{"master":null}`, `{"master":[null]}`, `{"master":7}`, `{"IP":"10.0.0.1"}`, `{"ip":"a","ip":"b"}`, `{"other":1}`,
		`{"network_config":{}}`, `{"network_config":{"overlay_mtu":1.5}}`, `{"network_config":{"Overlay_MTU":1}}`, `{"network_config":{"x":1}}`, `{"vxlan_filter":"no"}`, `[]`, ``, `{}x`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, want := newFile(), newFile()
		if !got.readPlain([]byte(text)) {
			if !reflect.DeepEqual(got, newFile()) {
				t.Errorf("%s: left to the other, and changed: %+v", text, got)
			}
			return
		}
		err := want.read([]byte(text), func(_ place, err error) error { return err })
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v\nwant %+v, %v", text, got, want, errors.Unwrap(err))
		}
	})
}
