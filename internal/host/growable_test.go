package host

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// TestAvailableWhenFull: an agent with no address left can take a container
// only where a claim of one more subnet would succeed, and nothing is claimed
// to find that out.
func TestAvailableWhenFull(t *testing.T) {
	answer := ""
	coordinator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer coordinator.Close()
	h := New(agentconf.Config{
		IP: netip.MustParseAddr("127.0.0.1"), Master: []string{coordinator.URL},
		StateDir: t.TempDir(), RunDir: t.TempDir(), Network: lease.DefaultNetworkConfig(),
	}, slog.New(slog.DiscardHandler))
	h.Dial = direct
	// A whole /30 for Mesos has one address beside network, gateway and broadcast.
	held := &agentstate.Held{
		Agent: lease.Agent{
			ID: "id", IP: h.Conf.IP, VTEP: lease.VTEP{IP: netip.MustParsePrefix("44.128.0.1/20")},
			Overlays: []lease.Overlay{{Name: "dcos", Subnets: []netip.Prefix{netip.MustParsePrefix("9.0.0.0/30")}, Split: lease.Split{Whole: true}}},
		},
		Network: network.Network{Overlays: []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/24"), Prefix: 30, MaxSubnets: 2}}},
	}
	if err := h.Dir.Save(held); err != nil {
		t.Fatal(err)
	}
	pool, _ := h.Pool(held, "dcos")
	if _, err := pool.Reserve(t.Context(), ipam.Owner{ContainerID: "c", IfName: "eth0"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	fails := func(when string, more bool, want string) {
		t.Helper()
		if err := h.Available(t.Context(), "dcos", more); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "1 of 1 addresses") {
			t.Errorf("%s: %v, want %q", when, err, want)
		}
	}
	const overlay = `{"name": "dcos", "subnet": "9.0.0.0/24", "prefix": 30, "max_subnets": %d, "enabled": %t, "subnets": {"leased": 60, "resting": 3, "free": %d}}`
	answer = fmt.Sprintf(overlay, 2, true, 1)
	if err := h.Available(t.Context(), "dcos", true); err != nil {
		t.Errorf("with one free subnet: %v", err)
	}
	fails("where none is claimed", false, "in use on this agent: stop")
	answer = fmt.Sprintf(overlay, 2, true, 0)
	fails("with none free", true, "none is free: agents hold 60, and 3 rest")
	answer = fmt.Sprintf(overlay, 2, false, 1)
	fails("with the overlay disabled", true, "the overlay is disabled")
	answer = fmt.Sprintf(overlay, 1, true, 1)
	fails("with the limit lowered meanwhile", true, "max_subnets is 1")
	answer = `{"name": "dcos", "max_subnets": 2}`
	fails("with an older coordinator", true, "older version")
	held.Network.Overlays[0].MaxSubnets = 1
	if err := h.Dir.Save(held); err != nil {
		t.Fatal(err)
	}
	answer = fmt.Sprintf(overlay, 2, true, 1)
	fails("at the limit", true, "it holds 1, and max_subnets is 1")
	held.Network.Overlays[0].MaxSubnets = 2
	if err := h.Dir.Save(held); err != nil {
		t.Fatal(err)
	}
	coordinator.Close()
	fails("with the coordinator away", true, "no coordinator grants one now")
}

// TestSameGrant: what makes another host of a record, and what does not.
func TestSameGrant(t *testing.T) {
	agent := func() lease.Agent {
		return lease.Agent{
			ID: "id", IP: netip.MustParseAddr("172.17.0.2"), VTEP: lease.VTEP{IP: netip.MustParsePrefix("44.128.0.1/20")},
			Overlays: []lease.Overlay{{Name: "other"}, {
				Name: "dual", Subnets: []netip.Prefix{netip.MustParsePrefix("9.0.0.0/24")}, Subnets6: []netip.Prefix{netip.MustParsePrefix("fd01::/80")},
			}},
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*lease.Agent)
		same   bool
	}{
		{"nothing", func(*lease.Agent) {}, true},
		{"state", func(a *lease.Agent) { a.Overlays[1].State.Status = lease.StatusOK }, true},
		{"another overlay", func(a *lease.Agent) { a.Overlays = a.Overlays[1:] }, true},
		{"address", func(a *lease.Agent) { a.IP = netip.MustParseAddr("172.17.0.3") }, false},
		{"VTEP", func(a *lease.Agent) { a.VTEP.IP = netip.MustParsePrefix("44.128.0.2/20") }, false},
		{"MAC", func(a *lease.Agent) { a.VTEP.MAC[5] = 9 }, false},
		{"subnet", func(a *lease.Agent) { a.Overlays[1].Subnets[0] = netip.MustParsePrefix("9.0.1.0/24") }, false},
		{"IPv6 subnet", func(a *lease.Agent) { a.Overlays[1].Subnets6 = nil }, false},
		{"split", func(a *lease.Agent) { a.Overlays[1].Split.Whole = true }, false},
		{"the overlay", func(a *lease.Agent) { a.Overlays = a.Overlays[:1] }, false},
	} {
		a, b := agent(), agent()
		tt.change(&b)
		if sameGrant(&a, &b, "dual") != tt.same || sameGrant(&b, &a, "dual") != tt.same {
			t.Errorf("%s: not %v", tt.name, tt.same)
		}
	}
}
