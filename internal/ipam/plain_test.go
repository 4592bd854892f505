package ipam

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
)

// TestPlainRecord: records are written and read as encoding/json does it.
func TestPlainRecord(t *testing.T) {
	full := record{
		ContainerID: "c", IfName: "eth0", Stamp: 1763811111222333444,
		Home: Home{
			Netns:  sandbox.ID{Path: "/run/netns/c", Device: 4, Inode: 4026532000, Cookie: 1 << 63, Boot: "b"},
			HostIf: "dov1", Network: "n", PortMapper: "/opt/cni/bin/portmap", Fixed: true,
		},
	}
	odd := full
	odd.Home.Netns.Path = "/run/<\"\\&ä\u2028"
	for _, r := range []record{full, odd, {}, {ContainerID: "c\n", Stamp: -1}} {
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.encode(); err != nil || string(got) != string(want) {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
		var back record
		if err := back.decode(want); err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s is read as %+v, %v", want, back, err)
		}
	}
	for i := range reflect.TypeFor[Home]().NumField() {
		if reflect.ValueOf(full.Home).Field(i).IsZero() {
			t.Errorf("%s is empty in the sample: tell encode and decode of new fields", reflect.TypeFor[Home]().Field(i).Name)
		}
	}
}

// FuzzPlainRecord: whatever is in a record's file, it is read as encoding/json
// does.
func FuzzPlainRecord(f *testing.F) {
	for _, text := range []string{`{"container_id":"c","netns":{"inode":1}}`, `{"stamp":1,"Stamp":2}`, `{"netns":{"inode":-1}}`, `{"netns":null}`, `{"x":1}`, `[]`, `{"if_name":"\u0041"}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got, want record
		gotErr, wantErr := got.decode([]byte(text)), json.Unmarshal([]byte(text), &want)
		if (gotErr == nil) != (wantErr == nil) || wantErr == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v, %v\nwant %+v, %v", text, got, gotErr, want, wantErr)
		}
	})
}
