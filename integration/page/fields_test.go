package page

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// TestFields: the page shows what few agents have: further subnets, routes
// that overlap the network, that Mesos has an agent no longer, and of an
// overlay that it is isolated.
func TestFields(t *testing.T) {
	c := newCrowd(t, nil)
	ctx := t.Context()
	// The first three are Mesos masters.
	c.join(5, []string{"dcos"})
	dcos, _ := c.registry.Network().Overlay("dcos")
	dcos.Isolated = true
	_, err := c.registry.PutOverlay(ctx, dcos)
	check(t, err)
	odd, plain := addr(3), addr(4)
	record, err := c.registry.Agent(ctx, odd)
	check(t, err)
	_, err = c.registry.Claim(ctx, odd, api.ClaimRequest{ID: record.ID, Overlays: []string{"dcos"}, AtLeast: map[string]api.SubnetCount{"dcos": {Subnets: 3}}})
	check(t, err)
	check(t, c.registry.Status(ctx, odd, api.StatusRequest{
		Overlays:   []api.OverlayStatus{{Name: "dcos", State: lease.State{Status: lease.StatusOK}}},
		HostRoutes: []netip.Prefix{netip.MustParsePrefix("9.77.0.0/16"), netip.MustParsePrefix("192.168.9.0/24")},
	}))
	// Nobody follows Mesos here, so the mark stays as it is.
	since := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	_, err = c.store.Client.Put(ctx, "/dcos-overlay/v1/mesos/"+odd.String(), fmt.Sprintf(`{"id": "m1", "gone_since": %q}`, since))
	check(t, err)

	b := newBrowser(t)
	b.size(wide, high)
	b.scheme("light")
	b.open(c.url)
	b.awaitText("#found", "5 agents")
	for i, row := range b.texts("#overlays tbody tr") {
		if i == 0 {
			contains(t, "dcos", row, "Enabled", "Isolated from other overlays.")
		} else {
			lacks(t, "another overlay", row, "Isolated")
		}
	}
	show := func(ip netip.Addr) string {
		b.open(c.url + "/?agent=" + ip.String())
		b.awaitText("#detail-body", "VTEP MAC")
		return b.text("#detail")
	}
	record, err = c.registry.Agent(ctx, odd)
	check(t, err)
	subnets := record.Overlay("dcos").Subnets
	if len(subnets) != 3 {
		t.Fatalf("the agent holds %v", subnets)
	}
	b.open(c.url + "/?agent=" + odd.String())
	b.awaitText("#detail-body", "Gone from Mesos")
	text := b.text("#detail")
	contains(t, "the odd agent", text, "since ", fmt.Sprintf("%s, %s, %s", subnets[0], subnets[1], subnets[2]),
		"Routes of the host's own overlap the network: 9.77.0.0/16 with overlay dcos (9.0.0.0/8).", "2 routes of the host's own")
	lacks(t, "what overlaps", text, "192.168.9.0/24 with")
	b.accessible("detail of an odd agent")
	lacks(t, "a plain agent", show(plain), "Gone from Mesos", "overlap the network", "routes of the host's own")
	b.sound()
}

// lacks fails t for each of words that is in text.
func lacks(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if strings.Contains(text, w) {
			t.Errorf("%s has %q: %q", what, w, text)
		}
	}
}
