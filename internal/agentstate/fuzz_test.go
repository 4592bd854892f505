package agentstate

import (
	"os"
	"reflect"
	"testing"
)

// FuzzState reads whatever is in an agent's files: nothing panics, what is read
// can be kept and read again as it was, and the id stays the same.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"agent":{"id":"x","ip":"172.17.0.4","vtep":{"ip":"44.128.0.2/20","mac":"70:b3:d5:80:00:02"},"overlays":[{"name":"dcos","subnets":["9.0.1.0/24"],"state":{"status":"STATUS_OK"}}]},`+
		`"network":{"vtep_subnet":"44.128.0.0/20","vtep_mac_oui":"70:B3:D5:00:00:00","overlays":[{"name":"dcos","subnet":"9.0.0.0/8","prefix":24}]},"revision":7}`),
		[]byte(`[{"id":"y","ip":"172.17.0.5","vtep":{"ip":"44.128.0.3/20","mac":"70:b3:d5:80:00:03"}}]`), []byte("0123456789abcdef\n"))
	f.Add([]byte(`{"agent":{"ip":"172.17.0.4","overlays":[{"name":"a","subnets":["9.0.1.0/99"]}]}}`), []byte(`[null]`), []byte(" \n"))
	f.Add([]byte(`null`), []byte(`{}`), []byte{})
	f.Add([]byte{}, []byte{}, []byte{0xff})
	f.Fuzz(func(t *testing.T, lease, peers, id []byte) {
		d := newDir(t)
		if err := os.MkdirAll(d.State, 0o755); err != nil {
			t.Fatal(err)
		}
		for path, data := range map[string][]byte{d.leasePath(): lease, d.peersPath(): peers, d.idPath(): id} {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if held, err := d.Held(); err == nil {
			if err := d.Save(held); err != nil {
				t.Fatal(err)
			}
			if again, err := d.Held(); err != nil || !reflect.DeepEqual(again, held) {
				t.Errorf("kept %+v, and read %+v, %v", held, again, err)
			}
			for _, o := range held.Agent.Overlays {
				o.MesosSide()
			}
		}
		if known, err := d.Peers(); err == nil {
			if err := d.SavePeers(known); err != nil {
				t.Fatal(err)
			}
			if again, err := d.Peers(); err != nil || !reflect.DeepEqual(again, known) {
				t.Errorf("kept %+v, and read %+v, %v", known, again, err)
			}
		}
		one, err := d.ID()
		if err != nil || one == "" {
			t.Fatalf("the id is %q, %v", one, err)
		}
		if two, err := d.ID(); err != nil || two != one {
			t.Errorf("the id was %q, and is %q, %v", one, two, err)
		}
	})
}
