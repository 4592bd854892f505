package registry_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// narrow has an overlay of eight subnets, of which an agent may have three,
// and one that gives Docker a quarter.
const narrow = `{
	"vtep_subnet": "44.128.0.0/20", "vtep_subnet6": "fd01:a::/64", "vtep_mac_oui": "70:B3:D5:00:00:00",
	"overlays": [
		{"name": "few", "subnet": "9.0.0.0/25", "prefix": 28, "subnet6": "fd01:b::/64", "prefix6": 80, "max_subnets": 3},
		{"name": "quarter", "subnet": "9.1.0.0/16", "prefix": 24, "docker_prefix": 26}
	]
}`

func (w *world) atLeast(i int, id string, n, n6 int) (lease.Agent, error) {
	resp, err := w.Claim(w.t.Context(), ip(i), api.ClaimRequest{
		ID: id, Overlays: []string{"few"}, AtLeast: map[string]api.SubnetCount{"few": {Subnets: n, Subnets6: n6}},
	})
	return resp.Agent, err
}

func TestMoreSubnets(t *testing.T) {
	w := newWorld(t, narrow, registry.Options{Quarantine: time.Hour})
	a := func(n, n6 int) string {
		t.Helper()
		got, err := w.atLeast(1, "a", n, n6)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(got.Overlays[0].Subnets, got.Overlays[0].Subnets6)
	}
	check(t, "one, if nothing is said", a(0, 0), "[9.0.0.0/28] [fd01:b::/80]")
	w.claim(2, "b", "few")
	check(t, "two of IPv4", a(2, 0), "[9.0.0.0/28 9.0.0.32/28] [fd01:b::/80]")
	check(t, "the same again", a(2, 1), "[9.0.0.0/28 9.0.0.32/28] [fd01:b::/80]")
	check(t, "two of IPv6", a(1, 2), "[9.0.0.0/28 9.0.0.32/28] [fd01:b::/80 fd01:b:0:0:2::/80]")
	check(t, "three", a(3, 0), "[9.0.0.0/28 9.0.0.32/28 9.0.0.48/28] [fd01:b::/80 fd01:b:0:0:2::/80]")

	_, err := w.atLeast(1, "a", 4, 0)
	wantCode(t, err, api.CodeExhausted, "overlay few: agent 172.17.0.1 holds 3 subnets, and max_subnets lets an agent have 3")
	_, err = w.Claim(t.Context(), ip(1), api.ClaimRequest{ID: "a", AtLeast: map[string]api.SubnetCount{"few": {Subnets: 2}}})
	wantCode(t, err, api.CodeInvalid, `at_least names overlay "few", which is not among overlays`)

	err = w.ReleaseSubnet(t.Context(), ip(1), "few", netip.MustParsePrefix("9.0.0.0/28"))
	wantCode(t, err, api.CodeConflict, "9.0.0.0/28 is the first subnet of overlay few that agent 172.17.0.1 has: release the overlay")
	for range 2 {
		if err := w.ReleaseSubnet(t.Context(), ip(1), "few", netip.MustParsePrefix("9.0.0.32/28")); err != nil {
			t.Fatal(err)
		}
	}
	check(t, "without the second", a(0, 0), "[9.0.0.0/28 9.0.0.48/28] [fd01:b::/80 fd01:b:0:0:2::/80]")
	for _, nobodys := range []string{"9.0.0.16/28", "9.9.9.0/28"} {
		if err := w.ReleaseSubnet(t.Context(), ip(1), "few", netip.MustParsePrefix(nobodys)); err != nil {
			t.Errorf("release of %s, which is not the agent's: %v", nobodys, err)
		}
	}
	check(t, "what was released rests", a(3, 0), "[9.0.0.0/28 9.0.0.48/28 9.0.0.64/28] [fd01:b::/80 fd01:b:0:0:2::/80]")
	w.release(1)
	check(t, "b has what it had", brief(w.claim(2, "b")), "172.17.0.2 44.128.0.2/20 fd01:a::2/64 few[9.0.0.16/28 fd01:b:0:0:1::/80]")
}

// TestSplitIsDecidedByTheClaim: containers live in both parts, so a change of
// the overlay is for those who come later.
func TestSplitIsDecidedByTheClaim(t *testing.T) {
	w := newWorld(t, narrow, registry.Options{})
	quarter := lease.Split{DockerPrefix: 26}
	check(t, "split by the overlay", w.claim(1, "a", "quarter").Overlays[0].Split, quarter)
	whole := lease.DefaultNetworkConfig()
	whole.DockerBridge, whole.KeepHalves = false, false
	resp, err := w.Claim(t.Context(), ip(2), api.ClaimRequest{ID: "b", Overlays: []string{"quarter"}, NetworkConfig: &whole})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "whole", resp.Agent.Overlays[0].Split, lease.Split{Whole: true})

	o, err := w.Overlay(t.Context(), "quarter")
	if err != nil {
		t.Fatal(err)
	}
	o.DockerPrefix = 28
	if _, err := w.PutOverlay(t.Context(), o.Overlay); err != nil {
		t.Fatal(err)
	}
	check(t, "of who held it", w.claim(1, "a", "quarter").Overlays[0].Split, quarter)
	check(t, "of who comes later", w.claim(3, "c", "quarter").Overlays[0].Split, lease.Split{DockerPrefix: 28})
	o.DockerPrefix = 24
	_, err = w.PutOverlay(t.Context(), o.Overlay)
	wantCode(t, err, api.CodeInvalid, "docker_prefix: 24 is not longer than the 24 of prefix; it is the length of Docker's part of an agent's subnet")
}

// TestRaceForTheLastSubnets: eight agents want three of the eight subnets each.
func TestRaceForTheLastSubnets(t *testing.T) {
	w := newWorld(t, narrow, registry.Options{})
	var mu sync.Mutex
	owner := map[netip.Prefix]int{}
	refused := 0
	var group sync.WaitGroup
	for i := range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 1; n <= 3; n++ {
				a, err := w.atLeast(i+1, fmt.Sprint("agent-", i), n, 1)
				mu.Lock()
				var refusal *api.Error
				switch {
				case err == nil:
					for _, s := range a.Overlays[0].Subnets {
						if o, taken := owner[s]; taken && o != i {
							t.Errorf("%s is agent %d's and agent %d's", s, o, i)
						}
						owner[s] = i
					}
				case errors.As(err, &refusal) && refusal.Code == api.CodeExhausted:
					refused++
				default:
					t.Errorf("agent %d: %v", i, err)
				}
				mu.Unlock()
			}
		}()
	}
	group.Wait()
	check(t, "subnets that are held", len(owner), 8)
	check(t, "claims that were refused", refused, 8*3-8)
}
