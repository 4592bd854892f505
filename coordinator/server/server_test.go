package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network/networkfile"
)

// world is a coordinator without a listener, on an etcd of its own.
type world struct {
	*Server
	t     testing.TB
	store *etcd.Store
	// halt stops the registry.
	halt func()
}

func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	s, err := etcd.Start(context.Background(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := registry.New(s.Client, registry.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w := &world{t: t, store: s, halt: cancel}
	o := Options{
		Registry: r,
		Log:      slog.New(slog.DiscardHandler),
		Ping:     20 * time.Millisecond,
		LocalAddrs: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("172.17.0.9")}, nil
		},
	}
	for _, c := range change {
		c(&o)
	}
	w.Server = New(o)
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	data, err := os.ReadFile("testdata/master.json")
	if err != nil {
		t.Fatal(err)
	}
	n, err := networkfile.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Seed(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	w.until("ready", func() bool { return w.call("", "GET", "/readyz", "").Code == http.StatusOK })
	return w
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// call makes a call from the address caller.
func (w *world) call(caller, method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if caller != "" {
		r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(caller), 4711).String()
	}
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	return rec
}

// ok makes a call that must succeed, and decodes its answer into v.
func (w *world) ok(caller, method, target, body string, v any) {
	w.t.Helper()
	rec := w.call(caller, method, target, body)
	if rec.Code >= 300 {
		w.t.Fatalf("%s %s: %d %s", method, target, rec.Code, rec.Body)
	}
	if v == nil {
		return
	}
	if got := rec.Header().Get("Content-Type"); got != "application/json" {
		w.t.Errorf("%s %s: content type %q", method, target, got)
	}
	if err := json.Unmarshal(rec.Body.Bytes(), v); err != nil {
		w.t.Fatalf("%s %s: %v in %s", method, target, err, rec.Body)
	}
}

// TestGoldenState: three agents claim, in the order of the sample, and the
// state is DC/OS's, field by field.
func TestGoldenState(t *testing.T) {
	w := newWorld(t)
	for _, agent := range []struct{ ip, config string }{
		{"172.17.0.2", `{"mesos_bridge": false, "docker_bridge": false}`},
		{"172.17.0.4", `{}`},
		{"172.17.0.3", `{}`},
	} {
		w.ok(agent.ip, "PUT", "/v1/agents/"+agent.ip+"/lease",
			fmt.Sprintf(`{"id": "id-%s", "all_overlays": true, "network_config": %s}`, agent.ip, agent.config), nil)
		w.ok(agent.ip, "PUT", "/v1/agents/"+agent.ip+"/status",
			`{"overlays": [{"name": "dcos", "state": {"status": "STATUS_OK"}}, {"name": "dcos6", "state": {"status": "STATUS_OK"}}]}`, nil)
	}
	data, err := os.ReadFile("testdata/overlay-master-state.json")
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(want["agents"].([]any), func(a, b any) int {
		return strings.Compare(a.(map[string]any)["ip"].(string), b.(map[string]any)["ip"].(string))
	})
	w.ok("", "GET", "/overlay-master/state", "", &got)
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		x, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("got %s\nwant %s", g, x)
	}

	plain := w.call("", "GET", "/overlay-master/state", "").Body.String()
	rec := w.call("", "GET", "/overlay-master/state?jsonp=angular.callbacks._0", "")
	if want := "angular.callbacks._0(" + strings.TrimSpace(plain) + ");"; rec.Body.String() != want {
		t.Errorf("jsonp: got %s", rec.Body)
	}
	if got := rec.Header().Get("Content-Type"); got != "text/javascript" {
		t.Errorf("jsonp: content type %q", got)
	}
}

func TestEmptyState(t *testing.T) {
	w := newWorld(t)
	if got := w.call("", "GET", "/overlay-master/state", "").Body.String(); !strings.HasPrefix(got, `{"agents":[],"network":{`) {
		t.Errorf("got %s", got)
	}
}

func TestAgentsDelete(t *testing.T) {
	w := newWorld(t)
	for _, ip := range []string{"172.17.0.2", "172.17.0.3"} {
		w.ok(ip, "PUT", "/v1/agents/"+ip+"/lease", `{"id": "`+ip+`"}`, nil)
	}
	rec := w.call("", "POST", "/overlay-master/agents/delete", `{"agents": ["172.17.0.2", "nonsense", "172.17.0"]}`)
	wantError(t, rec, 400, api.CodeInvalid, `nothing is deleted, for these are not addresses of agents: "nonsense", "172.17.0"`)
	var state struct{ Agents []struct{ IP string } }
	w.ok("", "POST", "/overlay-master/agents/delete", `{"agents": []}`, &state)
	if len(state.Agents) != 2 {
		t.Errorf("after deleting none: %v", state)
	}
	w.ok("", "POST", "/overlay-master/agents/delete", `{"agents": ["172.17.0.2", "10.0.0.1"]}`, &state)
	if len(state.Agents) != 1 || state.Agents[0].IP != "172.17.0.3" {
		t.Errorf("after deleting one: %v", state)
	}
}

func wantError(t testing.TB, rec *httptest.ResponseRecorder, status int, code api.Code, message string) {
	t.Helper()
	var body api.ErrorBody
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || body.Error == nil {
		t.Errorf("not an error: %d %s", rec.Code, rec.Body)
		return
	}
	if rec.Code != status || body.Error.Code != code || body.Error.Message != message {
		t.Errorf("got %d %s: %s,\nwant %d %s: %s", rec.Code, body.Error.Code, body.Error.Message, status, code, message)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/lease", `{"id": "a"}`, nil)
	const own = "172.17.0.2"
	const lease = "/v1/agents/172.17.0.2/lease"
	const may = ": an agent acts only for the address that it calls from (see ip, interface and ip_cidr in agent.json)"
	for _, test := range []struct {
		caller, method, target, body string
		status                       int
		code                         api.Code
		message                      string
	}{
		{"172.17.0.3", "PUT", lease, `{"id": "a"}`, 403, api.CodeForbidden, "172.17.0.3 may not act for agent 172.17.0.2" + may},
		{"172.17.0.3", "DELETE", lease, "", 403, api.CodeForbidden, "172.17.0.3 may not act for agent 172.17.0.2" + may},
		{"172.17.0.3", "PUT", "/v1/agents/172.17.0.2/status", `{}`, 403, api.CodeForbidden, "172.17.0.3 may not act for agent 172.17.0.2" + may},
		{"127.0.0.1", "PUT", lease, `{"id": "a"}`, 403, api.CodeForbidden, "127.0.0.1 may not act for agent 172.17.0.2" + may},
		{own, "PUT", "/v1/agents/nonsense/lease", `{"id": "a"}`, 400, api.CodeInvalid, `"nonsense" is not the address of an agent, such as 172.17.0.2`},
		{own, "PUT", "/v1/agents/0.0.0.0/lease", `{"id": "a"}`, 400, api.CodeInvalid, `"0.0.0.0" is not the address of an agent, such as 172.17.0.2`},
		{own, "PUT", "/v1/agents/fe80::1%25eth0/lease", `{"id": "a"}`, 400, api.CodeInvalid, `"fe80::1%eth0" is not the address of an agent, such as 172.17.0.2`},
		{own, "PUT", lease, "", 400, api.CodeInvalid, "the body is empty: it must be a JSON object"},
		{own, "PUT", lease, `{"id": "a"} x`, 400, api.CodeInvalid, "the body is not what PUT " + lease + " takes: invalid character 'x' looking for beginning of value"},
		{own, "PUT", lease, `{"id": "a"}{}`, 400, api.CodeInvalid, "the body is not what PUT " + lease + " takes: something follows the first value"},
		{own, "PUT", lease, `{"id": "a", "colour": 1}`, 400, api.CodeInvalid, "the body is not what PUT " + lease + ` takes: json: unknown field "colour"`},
		{own, "PUT", lease, `{"id": "a", "network_config": {"colour": 1}}`, 400, api.CodeInvalid, "the body is not what PUT " + lease + ` takes: json: unknown field "colour"`},
		{own, "PUT", lease, `{"id": "` + strings.Repeat("a", maxBody) + `"}`, 413, api.CodeTooLarge, "the body has more than 1048576 bytes"},
		{own, "PUT", lease, strings.Repeat(" ", maxBody+1), 413, api.CodeTooLarge, "the body has more than 1048576 bytes"},
		{own, "PUT", lease, `{"id": "a", "overlays": ["nope"]}`, 404, api.CodeNotFound, `there is no overlay "nope": there are dcos, dcos6`},
		{"172.17.0.3", "PUT", "/v1/agents/172.17.0.3/status", `{"overlays": []}`, 404, api.CodeNotFound, "there is no agent 172.17.0.3: claim again"},
		{own, "GET", lease, "", 405, api.CodeNotSupported, "GET is not supported on " + lease + ": only DELETE, PUT"},
		{own, "DELETE", lease + "?overlays=dcos", "", 400, api.CodeInvalid, lease + " takes no parameters but overlay, with the name of one, and subnet, each once"},
		{own, "DELETE", lease + "?overlay=dcos&subnet=9.0.1.0", "", 400, api.CodeInvalid, `subnet is "9.0.1.0": it must be one such as 9.0.1.0/24, and overlay must say of which`},
		{own, "DELETE", lease + "?subnet=9.0.1.0/24", "", 400, api.CodeInvalid, `subnet is "9.0.1.0/24": it must be one such as 9.0.1.0/24, and overlay must say of which`},
		{own, "DELETE", lease + "?overlay=", "", 400, api.CodeInvalid, lease + " takes no parameters but overlay, with the name of one, and subnet, each once"},
		{own, "PUT", "/v1/overlays/dcos", "{}", 400, api.CodeInvalid, "overlay dcos: has no addresses; give it subnet and prefix, or subnet6 and prefix6, or all four"},
		{own, "PUT", "/v1/overlays/dcos", `{"name": "other"}`, 400, api.CodeInvalid, `the body is of overlay "other", and the path of "dcos": an overlay's name can't change`},
		{own, "PUT", "/v1/overlays/host", `{"subnet": "10.1.0.0/16", "prefix": 33}`, 400, api.CodeInvalid,
			`name: "host" is one of the names that Docker keeps for itself (host, bridge, default, none); prefix: 33 is longer than an IPv4 address (32)`},
		{own, "PUT", "/v1/overlays/a%2Fb", `{"subnet": "10.1.0.0/16", "prefix": 24}`, 400, api.CodeInvalid,
			`name: "a/b" holds '/'; a name holds letters and digits of ASCII, "-", "_" and "." only`},
		{own, "PUT", "/v1/overlays/new", `{"subnet": "9.1.0.0/16", "prefix": 24}`, 409, api.CodeConflict,
			"overlay new.subnet: 9.1.0.0/16 overlaps overlay dcos.subnet (9.0.0.0/8)"},
		{own, "DELETE", "/v1/overlays/nope", "", 404, api.CodeNotFound, `there is no overlay "nope": /v1/overlays lists them`},
		{own, "DELETE", "/v1/overlays/dcos?force=yes", "", 400, api.CodeInvalid, `force is "yes": it must be true or false`},
		{own, "POST", "/v1/import", "[]", 400, api.CodeInvalid, "the body is not a state of DC/OS's: json: cannot unmarshal array into Go value of type masterstate.State"},
		{own, "POST", "/v1/import", "{}", 400, api.CodeInvalid, "the body is not a state of DC/OS's: it has no agents"},
		{own, "POST", "/metrics", "", 405, api.CodeNotSupported, "POST is not supported on /metrics: only GET"},
		{own, "GET", "/v1/overlays/nope", "", 404, api.CodeNotFound, `there is no overlay "nope": /v1/overlays lists them`},
		{own, "GET", "/v1/agents/172.17.0.3", "", 404, api.CodeNotFound, "there is no agent 172.17.0.3"},
		{own, "GET", "/nowhere", "", 404, api.CodeNotFound, "there is nothing at /nowhere: / lists what there is"},
		{own, "GET", "/v1/agents?watch=maybe", "", 400, api.CodeInvalid, `watch is "maybe": it must be true or false`},
		{own, "GET", "/v1/agents?watch=true&since=-1", "", 400, api.CodeInvalid, `since is "-1": it must be the revision of an event`},
		{own, "GET", "/overlay-master/state?jsonp=a(b)", "", 400, api.CodeInvalid, `jsonp is "a(b)": it must be the name of a JavaScript function`},
		{own, "GET", "/overlay-master/state?jsonp=a%0A", "", 400, api.CodeInvalid, `jsonp is "a\n": it must be the name of a JavaScript function`},
	} {
		wantError(t, w.call(test.caller, test.method, test.target, test.body), test.status, test.code, test.message)
	}
	var list api.AgentsResponse
	w.ok("", "GET", "/v1/agents", "", &list)
	if len(list.Agents) != 1 || len(list.Agents[0].Overlays) != 0 {
		t.Errorf("after refused calls: %+v", list.Agents)
	}
}

func TestAnotherSitesPage(t *testing.T) {
	w := newWorld(t)
	r := httptest.NewRequest("POST", "/overlay-master/agents/delete", strings.NewReader(`{"agents": []}`))
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	wantError(t, rec, 403, api.CodeForbidden, "a page of another site may not change anything here")
}

func TestCallersThatMay(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct{ caller, ip string }{
		{"172.17.0.2", "172.17.0.2"},
		{"::ffff:172.17.0.3", "172.17.0.3"},
		{"fd00::1", "fd00::1"},
		{"127.0.0.1", "172.17.0.9"},
		{"::1", "172.17.0.9"},
		{"127.0.0.5", "127.0.0.5"},
	} {
		w.ok(test.caller, "PUT", "/v1/agents/"+test.ip+"/lease", `{"id": "`+test.ip+`"}`, nil)
	}
}

func TestReads(t *testing.T) {
	w := newWorld(t)
	var claimed api.ClaimResponse
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/lease", `{"id": "a", "overlays": ["dcos"]}`, &claimed)
	var one lease.Agent
	w.ok("", "GET", "/v1/agents/172.17.0.2", "", &one)
	if !reflect.DeepEqual(one, claimed.Agent) {
		t.Errorf("agent: got %+v, want %+v", one, claimed.Agent)
	}
	var list api.AgentsResponse
	w.ok("", "GET", "/v1/agents", "", &list)
	if want := (api.AgentsResponse{Agents: []lease.Agent{one}, Network: claimed.Network, Revision: claimed.Revision}); !reflect.DeepEqual(list, want) {
		t.Errorf("agents: got %+v, want %+v", list, want)
	}
	if got := w.call("", "GET", "/v1/overlays", "").Body.String(); got != `[{"name":"dcos","subnet":"9.0.0.0/8","prefix":24,"holders":1,"subnets":{"leased":1,"resting":0,"free":65535}},`+
		`{"name":"dcos6","subnet6":"fd01:b::/64","prefix6":80,"holders":0,"subnets6":{"leased":0,"resting":0,"free":65536}}]`+"\n" {
		t.Errorf("overlays: %s", got)
	}
	if got := w.call("", "GET", "/v1/overlays/dcos6", "").Body.String(); got != `{"name":"dcos6","subnet6":"fd01:b::/64","prefix6":80,"holders":0,"subnets6":{"leased":0,"resting":0,"free":65536}}`+"\n" {
		t.Errorf("overlay: %s", got)
	}
	for target, want := range map[string]string{
		"/healthz": "ok\n",
		"/":        listing,
		"/metrics": "dcos_overlay_coordinator_claims_total{result=\"ok\"} 1\n",
	} {
		if got := w.call("", "GET", target, "").Body.String(); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
	w.ok("172.17.0.2", "DELETE", "/v1/agents/172.17.0.2/lease", "", nil)
	w.ok("172.17.0.2", "DELETE", "/v1/agents/172.17.0.2/lease", "", nil)
	wantError(t, w.call("", "GET", "/v1/agents/172.17.0.2", ""), 404, api.CodeNotFound, "there is no agent 172.17.0.2")
}

func TestNotReady(t *testing.T) {
	w := newWorld(t)
	w.halt()
	w.until("not ready", func() bool { return w.call("", "GET", "/readyz", "").Code == http.StatusServiceUnavailable })
	wantError(t, w.call("", "GET", "/readyz", ""), 503, api.CodeUnavailable, "not ready: the index is not in step with etcd")
	// What is known is still told.
	w.ok("", "GET", "/overlay-master/state", "", &struct{}{})
}

func TestAnswer(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		want   string
	}{
		{fmt.Errorf("claim: %w", fail(api.CodeExhausted, "none left")), 409, "exhausted: none left"},
		{fmt.Errorf("claim: %w: %w", registry.ErrUnavailable, rpctypes.ErrNoLeader), 503,
			"unavailable: the coordinator can't use etcd (no leader): what was asked for may or may not have happened; try again"},
		{fmt.Errorf("claim: %w: %w", registry.ErrUnavailable, context.DeadlineExceeded), 503,
			"unavailable: the coordinator can't use etcd (no answer in time): what was asked for may or may not have happened; try again"},
		{fmt.Errorf("claim: %w: secret", registry.ErrUnavailable), 503,
			"unavailable: the coordinator can't use etcd: what was asked for may or may not have happened; try again"},
		{errors.New("secret"), 500, "internal: the coordinator failed: its log says why"},
	} {
		e := answer(test.err)
		if got := fmt.Sprintf("%s: %s", e.Code, e.Message); got != test.want || e.Status != test.status {
			t.Errorf("got %d %s, want %d %s", e.Status, got, test.status, test.want)
		}
	}
}

// FuzzBodies: no body of any call may do more than be refused.
func FuzzBodies(f *testing.F) {
	w := newWorld(f)
	targets := []string{
		"PUT /v1/agents/172.17.0.2/lease", "PUT /v1/agents/172.17.0.2/status", "POST /overlay-master/agents/delete",
		"PUT /v1/overlays/x", "POST /v1/import",
	}
	for i := range targets {
		for _, seed := range []string{`{"id": "a", "all_overlays": true}`, `{"agents": ["172.17.0.2"]}`,
			`{"overlays": [{"name": "dcos", "state": {"status": "STATUS_OK"}, "addresses": {"mesos": null}}]}`, `{"subnet": "10.1.0.0/16", "prefix": 24}`, `{"host_routes": ["10.1.0.0/16"]}`,
			`{"agents": [{"ip": "10.0.0.1", "overlays": [{"info": {"name": "dcos"}, "subnet": "9.0.7.0/24", "docker_bridge": {},
				"backend": {"vxlan": {"vtep_ip": "44.128.0.1/20", "vtep_mac": "70:b3:d5:80:00:01"}}}]}]}`,
			`null`, `[]`, `{"id": "a", "network_config": null}`} {
			f.Add(i, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		method, target, _ := strings.Cut(targets[uint(i)%uint(len(targets))], " ")
		r := httptest.NewRequest(method, target, bytes.NewReader(body))
		r.RemoteAddr = "172.17.0.2:4711"
		rec := httptest.NewRecorder()
		w.Handler().ServeHTTP(rec, r)
		if rec.Code >= 500 {
			text, _ := io.ReadAll(rec.Body)
			t.Errorf("%s %s with %q: %d %s", method, target, body, rec.Code, text)
		}
	})
}
