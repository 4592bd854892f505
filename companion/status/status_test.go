package status

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/companion/agent"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// fake says what it is told to.
type fake struct {
	status agent.Status
	entry  *masterstate.Agent
}

func (f fake) Status() agent.Status { return f.status }
func (f fake) Unknown() int         { return 3 }
func (f fake) Entry() (masterstate.Agent, bool) {
	if f.entry == nil {
		return masterstate.Agent{}, false
	}
	return *f.entry, true
}

func get(t *testing.T, f fake, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(f, f, time.Minute).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealth(t *testing.T) {
	now := time.Now()
	fine := agent.Pass{At: now, Connected: true}
	for _, tt := range []struct {
		name   string
		status agent.Status
		code   int
		says   []string
	}{
		{"before the first pass", agent.Status{}, 503, []string{"first pass"}},
		{"fine", agent.Status{Passes: 1, Last: fine}, 200, []string{"ok\n"}},
		{"hung", agent.Status{Passes: 1, Last: agent.Pass{At: now.Add(-2 * time.Minute)}}, 503, []string{"no pass was done for 2m0s"}},
		{"wrong", agent.Status{Passes: 1, Last: agent.Pass{At: now, Err: errors.New("no VTEP")}}, 503, []string{"no VTEP"}},
		{
			"one overlay wrong", agent.Status{Passes: 1, Last: agent.Pass{At: now, Connected: true, Overlays: errors.New("overlay dcos: no Docker")}},
			200, []string{"ok\n", "but overlay dcos: no Docker"},
		},
		{"never connected", agent.Status{Passes: 1, Last: agent.Pass{At: now}}, 200, []string{"not open since the start"}},
		{
			"stream away", agent.Status{Passes: 1, Last: agent.Pass{At: now}, SyncedAt: time.Unix(0, 0).UTC()},
			200, []string{"away since about 1970-01-01T00:00:00Z", "what is set up stays"},
		},
		{
			"warnings", agent.Status{Passes: 1, Last: fine, Warnings: []string{"two flavours"}, Crowded: []string{"ipv6"}},
			200, []string{"two flavours", "(ipv6)", "gc_thresh3"},
		},
	} {
		code, body := get(t, fake{status: tt.status}, "/healthz")
		if code != tt.code {
			t.Errorf("%s: it answers %d, want %d: %s", tt.name, code, tt.code, body)
		}
		for _, want := range tt.says {
			if !strings.Contains(body, want) {
				t.Errorf("%s: %q is not in %q", tt.name, want, body)
			}
		}
	}
}

func TestEntry(t *testing.T) {
	if code, _ := get(t, fake{}, "/overlay-agent/overlay"); code != http.StatusServiceUnavailable {
		t.Errorf("without a lease it answers %d", code)
	}
	code, body := get(t, fake{entry: &masterstate.Agent{Overlays: []masterstate.Overlay{}}}, "/overlay-agent/overlay")
	if code != http.StatusOK || !strings.Contains(body, `"overlays":[]`) {
		t.Errorf("it answers %d %s", code, body)
	}
}

func TestMetrics(t *testing.T) {
	_, body := get(t, fake{status: agent.Status{
		Passes:  2,
		Repairs: map[host.Kind]int64{host.KindPeers: 5},
		Last:    agent.Pass{At: time.Unix(1000, 0), Took: 30 * time.Millisecond, Peers: 7, Revision: 11, Connected: true},
		Overlays: []api.OverlayStatus{
			{Name: "dcos", State: lease.State{Status: lease.StatusOK}, Addresses: api.Addresses{Mesos: &api.Usage{Used: 4, Free: 121}}},
			{Name: "dcos6", State: lease.State{Status: lease.StatusFailed}},
		},
		SyncedAt: time.Unix(900, 0), WantsDocker: true, Warnings: []string{"two flavours"}, Crowded: []string{"ipv4"},
	}}, "/metrics")
	for _, want := range []string{
		"passes_total 2", `repairs_total{kind="peers"} 5`, `repairs_total{kind="conf"} 0`, "peers 7", "revision 11",
		"stream_connected 1", "stream_synced 1", "last_sync_timestamp_seconds 900", "last_pass_ok 1",
		"last_pass_timestamp_seconds 1000", "last_pass_duration_seconds 0.03", "docker_up 0", "warnings 1",
		"reservations_unknown 3", `neighbour_table_small{family="ipv4"} 1`, `neighbour_table_small{family="ipv6"} 0`,
		`overlay_ok{overlay="dcos"} 1`, `overlay_ok{overlay="dcos6"} 0`,
		`addresses{containerizer="mesos",overlay="dcos",state="used"} 4`,
		`addresses{containerizer="mesos",overlay="dcos",state="free"} 121`,
	} {
		if !strings.Contains(body, "\ndcos_overlay_companion_"+want+"\n") {
			t.Errorf("there is no %s in\n%s", want, body)
		}
	}
	if strings.Contains(body, `containerizer="docker"`) {
		t.Error("addresses of a Docker network that there is not")
	}
	if _, body := get(t, fake{}, "/metrics"); strings.Contains(body, "docker_up") || strings.Contains(body, "last_sync") {
		t.Errorf("before the first pass there is\n%s", body)
	}
}
