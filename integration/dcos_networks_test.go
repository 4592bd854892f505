package integration

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	check(t, json.Unmarshal(data, v))
}

// TestDCOSNetworksAddedLater: by the configuration and by the API, to a cluster
// whose agents run; a disabled one gives nothing until it is enabled; names
// that DC/OS reserves are none; and no overlay is made over a host's own routes.
func TestDCOSNetworksAddedLater(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx := t.Context()
	for _, h := range s.Agents() {
		must[string](t)(h.Run(ctx, "ip", "route", "add", "10.77.0.0/16", "via", lab.Router4.String()))
	}
	check(t, s.Up(ctx))
	hosts := []*lab.Host{s.Master, s.A, s.B}
	before := wantStates(t, s, []string{"dcos", "dcos6"}, hosts...)

	// By the configuration.
	check(t, s.Coordinator.Stop(ctx))
	config := func(more string) []byte {
		return []byte(strings.Replace(string(scene.MasterJSON), "\n    ]", ",\n      "+more+"\n    ]", 1))
	}
	const dual = `{"name": "dual", "subnet": "12.0.0.0/8", "prefix": 24, "subnet6": "fd01:c::/64", "prefix6": 80}`
	s.Coordinator = must[*lab.Process](t)(s.Master.StartCoordinator(ctx, lab.CoordinatorOptions{Config: config(dual)}))
	state := wantStates(t, s, []string{"dcos", "dcos6", "dual"}, hosts...)
	for _, h := range hosts {
		for _, name := range []string{"dcos", "dcos6"} {
			same(t, name+" of host "+h.Name, overlayOf(entryOf(state, h), name), overlayOf(entryOf(before, h), name))
		}
	}
	c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "dual", Conf: scene.CNI("dual")}))
	if !c.IP4.IsValid() || !c.IP6.IsValid() {
		t.Errorf("a container of both families has %s and %s", c.IP4, c.IP6)
	}
	check(t, c.Delete(ctx))

	// By the API: disabled at first.
	put := func(name, body string, want int, says string) {
		t.Helper()
		code, answer, err := s.Master.HTTP(ctx, http.MethodPut, s.Master.CoordinatorURL()+"/v1/overlays/"+name, []byte(body))
		if err != nil || code != want || !strings.Contains(string(answer), says) {
			t.Errorf("PUT of %s: %d %s, %v; want %d and %q", name, code, answer, err, want, says)
		}
	}
	const web = `"subnet": "10.20.0.0/16", "prefix": 26`
	put("web", `{`+web+`, "enabled": false}`, http.StatusCreated, "")
	state = wantStates(t, s, []string{"dcos", "dcos6", "dual"}, hosts...)
	listed := state["network"].(object)["overlays"].([]any)
	same(t, "the disabled overlay", listed[len(listed)-1], any(object{"name": "web", "subnet": "10.20.0.0/16", "prefix": 26.0, "enabled": false}))
	_, err := s.A.MesosContainer(ctx, lab.MesosTask{ID: "web", Conf: scene.CNI("web")})
	if err == nil || !strings.Contains(err.Error(), "overlay web is disabled") {
		t.Errorf("a container on a disabled overlay is answered %v", err)
	}
	put("web", `{`+web+`}`, http.StatusOK, "")
	wantStates(t, s, []string{"dcos", "dcos6", "dual", "web"}, hosts...)
	c = must[*lab.Container](t)(s.A.DockerContainer(ctx, "web1", "web"))
	check(t, c.Delete(ctx))
	// Disabled again: who holds of it keeps it, and starts containers on it.
	put("web", `{`+web+`, "enabled": false}`, http.StatusOK, "")
	state = wantStates(t, s, []string{"dcos", "dcos6", "dual", "web"}, hosts...)
	same(t, "enabled, as the agents show it", overlayOf(entryOf(state, s.A), "web")["info"].(object)["enabled"], any(false))
	c = must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "held", Conf: scene.CNI("web")}))
	check(t, c.Delete(ctx))

	for _, name := range []string{"host", "bridge", "default"} {
		put(name, `{"subnet": "10.40.0.0/16", "prefix": 26}`, http.StatusBadRequest, "one of the names that Docker keeps for itself")
	}
	put("fourteen-bytes", `{"subnet": "10.40.0.0/16", "prefix": 26}`, http.StatusBadRequest, "at most 13")
	put("over", `{"subnet": "9.128.0.0/16", "prefix": 24}`, http.StatusConflict, "overlaps")
	put("routed", `{"subnet": "10.77.4.0/22", "prefix": 26}`, http.StatusConflict, "hosts route some of its addresses by themselves: 10.77.0.0/16 at 172.17.0.3, 10.77.0.0/16 at 172.17.0.4")

	// A host's route that comes later is told of, at the agent and here.
	must[string](t)(s.A.Run(ctx, "ip", "route", "add", "9.200.0.0/16", "via", lab.Router4.String()))
	const once = "the route 9.200.0.0/16 dev eth0 of this host overlaps overlay dcos (9.0.0.0/8)"
	within, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	check(t, lab.Until(within, "the clash to be told", func(ctx context.Context) error {
		_, health, err := s.A.HTTP(ctx, http.MethodGet, "http://127.0.0.1:64002/healthz", nil)
		if err == nil && !strings.Contains(string(health), once) {
			err = errors.New(string(health))
		}
		want := []any{object{"route": "9.200.0.0/16", "with": []any{"overlay dcos (9.0.0.0/8)"}}}
		status := get(t, s.Master, s.Master.CoordinatorURL()+"/v1/agents/"+s.A.Addr.String())["status"].(object)
		if !reflect.DeepEqual(status["route_clashes"], any(want)) {
			err = errors.Join(err, errors.New(indent(status)))
		}
		return err
	}))
	if n := strings.Count(s.Companions["a"].Log(), once); n != 1 {
		t.Errorf("%q is logged %d times", once, n)
	}

	// A reserved name in the file: the coordinator does not start.
	check(t, s.Coordinator.Stop(ctx))
	check(t, s.Master.WriteFile(ctx, "/root/bad.json", config(`{"name": "default", "subnet": "10.40.0.0/16", "prefix": 24}`)))
	r := must[lab.Result](t)(s.Master.Exec(ctx, lab.Command{Args: []string{"dcos-overlay-coordinator", "--config", "/root/bad.json"}}))
	if r.Code != 2 || !strings.Contains(r.Stderr, `"default" is one of the names that Docker keeps for itself`) {
		t.Errorf("with a reserved name the coordinator ends with %d: %s", r.Code, r.Stderr)
	}
}
