package registry_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/coordinator/registry"
)

func TestSeed(t *testing.T) {
	s := store(t, t.TempDir())
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := registry.New(s.Client, registry.Options{})
	if _, err := r.Stored(t.Context()); !errors.Is(err, registry.ErrNotConfigured) {
		t.Errorf("got %v from an empty etcd", err)
	}
	seed := func(config string, want ...string) {
		t.Helper()
		got, err := r.Seed(t.Context(), parse(t, config))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("differences %v:\n got %s\nwant %s", err, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
	names := func(want string) {
		t.Helper()
		n, err := r.Stored(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range n.Overlays {
			got = append(got, o.Name)
		}
		check(t, "stored overlays", strings.Join(got, " "), want)
	}
	seed(sample)
	names("dcos dcos6 off")
	seed(sample)
	// What is missing is added behind; what differs stays as it is.
	seed(`{"vtep_subnet": "44.0.0.0/8", "vtep_mac_oui": "70:b3:d5:00:00:00",
		"overlays": [
			{"name": "aaa", "subnet": "10.1.0.0/16", "prefix": 24},
			{"name": "clash", "subnet": "10.9.4.0/22", "prefix": 24},
			{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 26, "enabled": false}]}`,
		"vtep_subnet is 44.128.0.0/20 in etcd and 44.0.0.0/8 in the configuration",
		"vtep_subnet6 is fd01:a::/64 in etcd and absent in the configuration",
		"overlay clash is not added, for it does not go with what is stored: overlays[4].subnet: 10.9.4.0/22 overlaps overlays[2].subnet (10.9.0.0/16)",
		"overlay dcos: prefix is 24 in etcd and 26 in the configuration",
		"overlay dcos: enabled is true in etcd and false in the configuration",
		"overlay dcos6 is stored and not in the configuration",
		"overlay off is stored and not in the configuration")
	names("dcos dcos6 off aaa")
}

// TestNetworkOnStreams: an overlay that is added is told to readers, and can be
// claimed from.
func TestNetworkOnStreams(t *testing.T) {
	w := newWorld(t, small, registry.Options{})
	r := w.watch(w.Registry, 0)
	r.expect("snapshot network:1 synced")
	added := strings.Replace(small, "}]}", `}, {"name": "late", "subnet": "10.1.0.0/16", "prefix": 24}]}`, 1)
	if _, err := w.Seed(t.Context(), parse(t, added)); err != nil {
		t.Fatal(err)
	}
	r.expect("network:2")
	check(t, "claim", brief(w.claim(1, "a", "late")), "172.17.0.1 44.128.0.1/29 late[10.1.0.0/24]")
	r.expect("set:172.17.0.1")
}
