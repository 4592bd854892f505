package host

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// TestDraining: an overlay that is being deleted takes no containers, by the
// lease's word alone where the coordinator does not answer, and takes them
// again once the coordinator says so.
func TestDraining(t *testing.T) {
	const record = `{"id": "id", "ip": "127.0.0.1", "vtep": {"ip": "44.128.0.1/20", "mac": "70:b3:d5:80:00:01"},
		"network_config": {}, "overlays": [{"name": "dcos", "subnets": ["9.0.0.0/24"], "state": {"status": "STATUS_OK"}}]}`
	const network = `{"vtep_subnet": "44.128.0.0/20", "overlays": [{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 24}]}`
	deleting := true
	coordinator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := `{"agent": ` + record + `, "network": ` + network + `, "revision": 9}`
		switch {
		case r.Method == http.MethodGet && deleting:
			body = `{"name": "dcos", "enabled": false, "deleting": true}`
		case r.Method == http.MethodGet:
			body = `{"name": "dcos"}`
		case deleting:
			body = strings.Replace(body, `"revision"`, `"deleting": ["dcos"], "revision"`, 1)
		}
		_, _ = io.WriteString(w, body)
	}))
	defer coordinator.Close()
	h := New(agentconf.Config{
		IP: netip.MustParseAddr("127.0.0.1"), Master: []string{coordinator.URL},
		StateDir: t.TempDir(), RunDir: t.TempDir(), Network: lease.DefaultNetworkConfig(),
	}, slog.New(slog.DiscardHandler))
	h.Dial = direct
	held := &agentstate.Held{Deleting: []string{"dcos"}, Revision: 5, Agent: lease.Agent{
		ID: "id", IP: h.Conf.IP, VTEP: lease.VTEP{IP: netip.MustParsePrefix("44.128.0.1/20")},
		Overlays: []lease.Overlay{{Name: "dcos", Subnets: []netip.Prefix{netip.MustParsePrefix("9.0.0.0/24")}}},
	}}
	refuses := func(when string) {
		t.Helper()
		if err := h.Dir.Save(held); err != nil {
			t.Fatal(err)
		}
		_, leaseErr := h.Lease(t.Context(), "dcos")
		for _, err := range []error{leaseErr, h.Available(t.Context(), "dcos", true)} {
			if err == nil || err.Error() != "overlay dcos is being deleted, and takes no more containers: use another one, or have it brought back with PUT /v1/overlays/dcos" {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	refuses("by the coordinator's word")
	deleting = false
	if err := h.Available(t.Context(), "dcos", true); err != nil {
		t.Errorf("when it is back: %v", err)
	}
	got, err := h.Lease(t.Context(), "dcos")
	if err != nil || got.Drains("dcos") || got.Revision != 9 {
		t.Errorf("when it is back the lease is %+v, %v", got, err)
	}
	coordinator.Close()
	if _, err := h.Lease(t.Context(), "dcos"); err != nil {
		t.Errorf("with the coordinator away: %v", err)
	}
	refuses("by the lease's word")
}
