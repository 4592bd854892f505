package registry

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// TestChangesNeverShowTwoOwners: between two loads an agent may have lost its
// lease and got another, and a third may have got the first.
func TestChangesNeverShowTwoOwners(t *testing.T) {
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{172, 17, 0, n}) }
	// indexOf has an agent n with the VTEP that is n-th in vteps, 0 for none.
	indexOf := func(rev int64, vteps ...byte) *index {
		x := newIndex()
		for n, v := range vteps {
			if v == 0 {
				continue
			}
			a := lease.Agent{VTEP: lease.VTEP{IP: netip.PrefixFrom(netip.AddrFrom4([4]byte{44, 128, 0, v}), 20)}}
			b, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := x.apply(keyValue{key: keyAgent(at(byte(n))), value: b, rev: rev}); err != nil {
				t.Fatal(err)
			}
		}
		return x
	}
	// A map's order is another each time.
	for range 50 {
		old, now := indexOf(1, 1, 2, 3, 4, 0), indexOf(2, 2, 3, 4, 5, 1)
		seen := map[netip.Addr]netip.Prefix{}
		for ip, a := range old.agents {
			seen[ip] = a.VTEP.IP
		}
		for _, e := range now.changes(old) {
			switch e.Type {
			case api.EventDelete:
				delete(seen, e.IP)
			case api.EventSet:
				for ip, vtep := range seen {
					if ip != e.Agent.IP && vtep == e.Agent.VTEP.IP {
						t.Fatalf("a reader sees %s at %s and at %s", vtep, ip, e.Agent.IP)
					}
				}
				seen[e.Agent.IP] = e.Agent.VTEP.IP
			}
		}
		if len(seen) != len(now.agents) {
			t.Fatalf("the reader ends with %v", seen)
		}
	}
}
