// Package registrytest judges what coordinators have left in etcd, for tests.
package registrytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/internal/lease"
)

const prefix = "/dcos-overlay/v1/"

// Whole fails t unless every agent's record and the keys of its id, VTEP and
// subnets say the same, and nothing both is leased and rests. It returns the
// records by IP. It reads the keys by itself, so that a fault of the
// registry's reading can't hide one of its writing.
func Whole(t testing.TB, client *clientv3.Client) map[netip.Addr]lease.Agent {
	t.Helper()
	resp, err := client.Get(context.Background(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	agents := map[netip.Addr]lease.Agent{}
	owners := map[string]string{}
	rest, overlays := map[string]bool{}, map[string]bool{}
	known := map[string][]string{}
	for _, kv := range resp.Kvs {
		key := strings.TrimPrefix(string(kv.Key), prefix)
		dir, name, _ := strings.Cut(key, "/")
		switch dir {
		case "agents":
			var a lease.Agent
			decode(t, key, kv.Value, &a)
			if a.IP.String() != name {
				t.Errorf("record %s says that it is of %s", key, a.IP)
			}
			agents[a.IP] = a
		case "ids", "vteps", "subnets":
			var ip netip.Addr
			decode(t, key, kv.Value, &ip)
			owners[key] = ip.String()
		case "addresses":
			var held struct{ Agent netip.Addr }
			decode(t, key, kv.Value, &held)
			owners[key] = held.Agent.String()
		case "released":
			rest[name] = true
		case "alive", "silent", "mesos":
			known[name] = append(known[name], dir)
		case "overlays":
			overlays[name] = true
		}
	}
	want := map[string]string{}
	for _, a := range agents {
		ip := a.IP.String()
		for _, key := range held(a) {
			if other, taken := want[key]; taken {
				t.Errorf("%s is in the records of both %s and %s", key, other, ip)
			}
			want[key] = ip
		}
	}
	for key, ip := range want {
		if owners[key] != ip {
			t.Errorf("%s is in the record of %s, but its key says %q", key, ip, owners[key])
		}
	}
	for _, a := range agents {
		for _, o := range a.Overlays {
			if !overlays[o.Name] {
				t.Errorf("agent %s holds of overlay %s, which there is not", a.IP, o.Name)
			}
		}
	}
	for name, what := range known {
		if ip, err := netip.ParseAddr(name); err != nil || agents[ip].IP != ip {
			t.Errorf("%s is %s, and has no record", name, what)
		}
	}
	for key, ip := range owners {
		if _, ok := want[key]; !ok {
			t.Errorf("key %s says %s, but no record has it", key, ip)
		}
		if rest[key] {
			t.Errorf("%s is leased and rests", key)
		}
	}
	return agents
}

// held are the keys that a's record says are its own.
func held(a lease.Agent) []string {
	keys := []string{"vteps/" + a.VTEP.IP.Addr().String()}
	if a.ID != "" { // an agent that was imported and has not claimed yet has none
		keys = append(keys, "ids/"+a.ID)
	}
	if a.VTEP.IP6.IsValid() {
		keys = append(keys, "vteps/"+a.VTEP.IP6.Addr().String())
	}
	for _, o := range a.Overlays {
		for _, s := range o.AllSubnets() {
			keys = append(keys, fmt.Sprintf("subnets/%s/%s", o.Name, s))
		}
		for _, fixed := range o.Addresses {
			keys = append(keys, fmt.Sprintf("addresses/%s/%s", o.Name, fixed.IP))
		}
	}
	return keys
}

func decode(t testing.TB, key string, value []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(value, v); err != nil {
		t.Errorf("%s holds %q: %v", key, value, err)
	}
}
