package agentstate

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// whole has something in every field.
const whole = `{"agent":{"id":"x","ip":"172.17.0.4",
	"vtep":{"ip":"44.128.0.2/20","ip6":"fd01:a::2/64","mac":"70:b3:d5:80:00:02"},
	"network_config":{"allocate_subnet":true,"mesos_bridge":true,"docker_bridge":true,"overlay_mtu":1400,"enable_ipv6":true,"keep_halves":true},
	"overlays":[{"name":"dcos","subnets":["9.0.1.0/24","9.0.7.0/24"],"subnets6":["fd01:b::/80"],
		"addresses":[{"ip":"9.255.0.1","container":"c","interface":"eth0"}],
		"split":{"docker_prefix":26,"docker_prefix6":90,"whole":true},"state":{"status":"STATUS_FAILED","error":"no room"}},
		{"name":"b","state":{"status":"STATUS_OK"}}]},
	"network":{"vtep_subnet":"44.128.0.0/20","vtep_subnet6":"fd01:a::/64","vtep_mac_oui":"70:B3:D5:00:00:00","vtep_mtu":1450,
		"overlays":[{"name":"dcos","subnet":"9.0.0.0/8","prefix":24,"subnet6":"fd01:b::/64","prefix6":80,"enabled":false,"max_subnets":3,
		"docker_prefix":26,"docker_prefix6":90,"isolated":true,"static_subnet":"9.255.0.0/16","static_subnet6":"fd01:b:ffff::/96","static_takeover":"1m30s"}]},
	"deleting":["b"],"revision":9007199254740993}`

// TestPlainLease: a lease with something in every field is read without
// encoding/json, and says the same; one with something else in it is left to
// that one.
func TestPlainLease(t *testing.T) {
	var want, got Held
	if err := json.Unmarshal([]byte(whole), &want); err != nil {
		t.Fatal(err)
	}
	if err := got.decode([]byte(whole)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	empty(t, reflect.ValueOf(want), "lease.json")
	for path, read := range map[string]func(plainjson.Value){
		"agent":   func(v plainjson.Value) { lease.Plain(v) },
		"network": func(v plainjson.Value) { network.Plain(v) },
	} {
		v := plainjson.Parse([]byte(whole))
		if read(v.Get(path)); !v.Plain() {
			t.Errorf("%s is not read plainly: tell package plainjson's users of new fields", path)
		}
	}
}

// empty complains of fields that the sample has nothing in.
func empty(t *testing.T, v reflect.Value, path string) {
	switch {
	case !strings.HasPrefix(v.Type().PkgPath(), "github.com/dcos") && v.Kind() != reflect.Slice:
		if v.IsZero() {
			t.Errorf("%s is empty in the sample", path)
		}
	case v.Kind() == reflect.Slice && v.Len() > 0:
		empty(t, v.Index(0), path)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				empty(t, v.Field(i), path+"."+f.Name)
			}
		}
	case v.IsZero():
		t.Errorf("%s is empty in the sample", path)
	}
}

// FuzzPlainLease: whatever is in the file, it is read as encoding/json does.
func FuzzPlainLease(f *testing.F) {
	f.Add(whole)
	for _, pair := range []string{
		`"deleting":["b"]|"deleting":null`, `"deleting":["b"]|"deleting":[]`, `"deleting":["b"]|"Deleting":["c"]`, `"deleting":["b"]|"more":1`,
		`"9.0.0.0/8"|""`, `"1m30s"|90`, `"1m30s"|"90"`, `"whole":true|"whole":1`, `"9.0.1.0/24",|`, `"id":"x"|"id":"x","id":"y"`,
		`"overlay_mtu":1400|"overlay_mtu":1400,"other":1`, `"network_config":{|"network_config":{},"x":{`, `"no room"|"no \"room\""`, `"172.17.0.4"|"172.17.0.4.5"`,
		`"70:b3:d5:80:00:02"|""`, `"mesos_bridge":true,|`, `"revision":|"revision":1.`, `"state":{|"state":{"x":1,`,
	} {
		old, now, _ := strings.Cut(pair, "|")
		f.Add(strings.Replace(whole, old, now, 1))
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want, got Held
		wantErr, gotErr := json.Unmarshal([]byte(text), &want), got.decode([]byte(text))
		if (wantErr == nil) != (gotErr == nil) || wantErr == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v, %v\nwant %+v, %v", text, got, gotErr, want, wantErr)
		}
	})
}
