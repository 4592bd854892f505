package server

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/api"
)

// status makes a call, and wants that status of it.
func (w *world) status(want int, method, target, body string) string {
	w.t.Helper()
	rec := w.call("10.0.0.1", method, target, body)
	if rec.Code != want {
		w.t.Errorf("%s %s: %d %s, want %d", method, target, rec.Code, rec.Body, want)
	}
	return rec.Body.String()
}

func TestOverlaysByHTTP(t *testing.T) {
	w := newWorld(t)
	const web = `{"subnet": "10.20.0.0/16", "prefix": 26}`
	if got := w.status(201, "PUT", "/v1/overlays/web", web); got != `{"name":"web","subnet":"10.20.0.0/16","prefix":26,"holders":0,"subnets":{"leased":0,"resting":0,"free":1024}}`+"\n" {
		t.Errorf("created: %s", got)
	}
	w.status(200, "PUT", "/v1/overlays/web", `{"name": "web", "subnet": "10.20.0.0/16", "prefix": 26}`)
	for _, ip := range []string{"172.17.0.2", "172.17.0.3"} {
		w.ok(ip, "PUT", "/v1/agents/"+ip+"/lease", `{"id": "`+ip+`", "overlays": ["web", "dcos"]}`, nil)
	}
	if got := w.status(202, "DELETE", "/v1/overlays/web", ""); got != `{"name":"web","subnet":"10.20.0.0/16","prefix":26,"enabled":false,"deleting":true,"holders":2,"subnets":{"leased":2,"resting":0,"free":1022}}`+"\n" {
		t.Errorf("draining: %s", got)
	}
	wantError(t, w.call("172.17.0.3", "DELETE", "/v1/agents/172.17.0.2/lease?overlay=web", ""), 403, api.CodeForbidden,
		"172.17.0.3 may not act for agent 172.17.0.2: an agent acts only for the address that it calls from (see ip, interface and ip_cidr in agent.json)")
	w.ok("172.17.0.2", "DELETE", "/v1/agents/172.17.0.2/lease?overlay=web", "", nil)
	if got := w.status(200, "GET", "/v1/overlays/web", ""); !strings.Contains(got, `"holders":1`) {
		t.Errorf("after a release: %s", got)
	}
	w.status(204, "DELETE", "/v1/overlays/web?force=true", "")
	w.status(404, "GET", "/v1/overlays/web", "")
	w.status(204, "DELETE", "/v1/overlays/web", "")
	var state struct {
		Agents []struct {
			Overlays []struct{ Info struct{ Name string } }
		}
	}
	w.ok("", "GET", "/overlay-master/state", "", &state)
	for _, a := range state.Agents {
		if len(a.Overlays) != 1 || a.Overlays[0].Info.Name != "dcos" {
			t.Errorf("left are %+v", a.Overlays)
		}
	}
}

func TestAgentsStatus(t *testing.T) {
	w := newWorld(t)
	for _, ip := range []string{"172.17.0.2", "172.17.0.3"} {
		w.ok(ip, "PUT", "/v1/agents/"+ip+"/lease", `{"id": "`+ip+`", "overlays": ["dcos"]}`, nil)
	}
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/status", `{"host_routes": ["10.1.0.0/16"], "overlays": [{"name": "dcos",
		"state": {"status": "STATUS_OK"}, "addresses": {"mesos": {"used": 3, "free": 122}}}]}`, nil)
	var list api.AgentsResponse
	w.ok("", "GET", "/v1/agents", "", &list)
	if list.Status != nil {
		t.Errorf("without being asked for, the status is told: %+v", list.Status)
	}
	w.ok("", "GET", "/v1/agents?status=true", "", &list)
	if len(list.Agents) != 2 || len(list.Status) != 2 {
		t.Fatalf("got %+v", list)
	}
	var one api.AgentResponse
	w.ok("", "GET", "/v1/agents/172.17.0.2", "", &one)
	if one.ID != "172.17.0.2" || !one.Status.Alive || one.Status.LastSeen.IsZero() || one.Status.Addresses["dcos"].Mesos.Used != 3 ||
		len(one.Status.HostRoutes) != 1 || !list.Status[one.IP].Alive {
		t.Errorf("got %+v", one)
	}
	w.ok("", "GET", "/v1/agents/172.17.0.3", "", &one)
	if one.Status.Alive || list.Status[one.IP].Alive {
		t.Errorf("an agent that never reported is %+v", one.Status)
	}

	wantError(t, w.call("", "PUT", "/v1/overlays/x", `{"subnet": "10.1.4.0/22", "prefix": 26}`), 409, api.CodeConflict,
		"overlay x: hosts route some of its addresses by themselves: 10.1.0.0/16 at 172.17.0.2")
	wantError(t, w.call("", "POST", "/overlay-master/agents/delete", `{"agents": ["172.17.0.2", "172.17.0.3"]}`), 409, api.CodeConflict,
		`nothing is deleted, for these agents are alive: 172.17.0.2: stop their companions and wait 1m0s, or delete with "force": true`)
	w.ok("", "POST", "/overlay-master/agents/delete", `{"agents": ["172.17.0.2", "172.17.0.3"], "force": true}`, &struct{}{})
	w.status(404, "GET", "/v1/agents/172.17.0.2", "")
}

// TestImportedState: what is imported is told again as it was.
func TestImportedState(t *testing.T) {
	w := newWorld(t)
	data, err := os.ReadFile("testdata/overlay-master-state.json")
	if err != nil {
		t.Fatal(err)
	}
	padded := string(data) + strings.Repeat(" ", 2*maxBody)
	if got := w.status(200, "POST", "/v1/import", padded); got != `{"imported":3,"unchanged":0,"empty":0}`+"\n" {
		t.Errorf("got %s", got)
	}
	var got, want struct {
		Agents []map[string]any
	}
	w.ok("", "GET", "/overlay-master/state", "", &got)
	if len(got.Agents) != 3 {
		t.Errorf("got %v", got)
	}
	w.ok("172.17.0.4", "PUT", "/v1/agents/172.17.0.4/lease", `{"id": "a", "all_overlays": true}`, nil)
	w.ok("", "GET", "/overlay-master/state", "", &want)
	for i := range got.Agents {
		if len(got.Agents[i]["overlays"].([]any)) != 2 || len(want.Agents[i]["overlays"].([]any)) != 2 {
			t.Errorf("agent %d was %v, and is %v after its claim", i, got.Agents[i], want.Agents[i])
		}
	}
	rec := w.call("", "POST", "/v1/import", strings.ReplaceAll(string(data), "9.0.2.0/24", "9.0.7.0/24"))
	if rec.Code != http.StatusConflict || !strings.Contains(rec.Body.String(), "agent 172.17.0.3: ") {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

// TestStale: reads go on without etcd and say how old they are; changes are
// refused.
func TestStale(t *testing.T) {
	w := newWorld(t)
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/lease", `{"id": "a"}`, nil)
	reads := []string{"/overlay-master/state", "/v1/agents", "/v1/agents/172.17.0.2", "/v1/overlays", "/v1/overlays/dcos"}
	for _, target := range reads {
		if got, ok := w.call("", "GET", target, "").Header()[api.HeaderStale]; ok {
			t.Errorf("%s: %v while etcd is there", target, got)
		}
	}
	w.halt()
	w.until("not ready", func() bool { return w.call("", "GET", "/readyz", "").Code == http.StatusServiceUnavailable })
	for _, target := range reads {
		rec := w.call("", "GET", target, "")
		if rec.Code != http.StatusOK || rec.Header().Get(api.HeaderStale) == "" {
			t.Errorf("%s: %d, %v", target, rec.Code, rec.Header())
		}
	}
	wantError(t, w.call("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/lease", `{"id": "a"}`), 503, api.CodeUnavailable,
		"the coordinator can't use etcd (no answer in time): what was asked for may or may not have happened; try again")
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/lease", `{"id": "a", "overlays": ["dcos"]}`, nil)
	w.ok("172.17.0.3", "PUT", "/v1/agents/172.17.0.3/lease", `{"id": "b", "overlays": ["dcos", "dcos6"]}`, nil)
	w.ok("172.17.0.3", "PUT", "/v1/agents/172.17.0.3/status", `{"overlays": []}`, nil)
	w.ok("172.17.0.2", "DELETE", "/v1/agents/172.17.0.2/lease", "", nil)
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/lease", `{"id": "a"}`, nil)
	got := w.call("", "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		`claims_total{result="ok"} 3`,
		`claim_duration_seconds_count 3`,
		`conflicts_total 0`,
		`agents 2`, `agents_alive 1`, `agents_silent 1`,
		`subnets{family="ipv4",overlay="dcos",state="free"} 65534`,
		`subnets{family="ipv4",overlay="dcos",state="leased"} 1`,
		`subnets{family="ipv4",overlay="dcos",state="resting"} 1`,
		`subnets{family="ipv6",overlay="dcos6",state="leased"} 1`,
		`vteps{family="ipv4",state="resting"} 1`,
		`etcd_duration_seconds_count{op="write"} `,
		`index_lag_seconds 0`,
	} {
		if !strings.Contains(got, "\n"+namespace+"_"+want) {
			t.Errorf("there is no %s in\n%s", want, got)
		}
	}
}
