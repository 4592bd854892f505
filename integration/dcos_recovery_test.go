package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// TestDCOSRecovery: the state outlives the coordinator's crash, and an agent's
// outlives its companion's crash and the host's reboot.
func TestDCOSRecovery(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))
	both := []string{"dcos", "dcos6"}
	before := wantStates(t, s, both, s.Master, s.A, s.B)
	var sample object
	check(t, json.Unmarshal(scene.StateJSON, &sample))
	same(t, "the network of the sample", before["network"], sample["network"])
	for _, h := range []*lab.Host{s.Master, s.A, s.B} {
		same(t, "host "+h.Name+" of the sample", entryOf(before, h), entryOf(sample, h))
	}

	check(t, s.Coordinator.Kill())
	check(t, s.StartCoordinator(ctx))
	// At once, and not only when the agents have reported again.
	same(t, "after the coordinator's crash", masterState(t, s), before)

	check(t, s.Companions["a"].Kill())
	same(t, "while a companion is down", masterState(t, s), before)
	check(t, s.StartCompanion(ctx, s.A))
	same(t, "after a companion's crash", wantStates(t, s, both, s.Master, s.A, s.B), before)

	check(t, s.A.Reboot(ctx))
	must[*lab.Process](t)(s.A.StartDocker(ctx))
	check(t, s.StartCompanion(ctx, s.A))
	same(t, "after a reboot", wantStates(t, s, both, s.Master, s.A, s.B), before)
	check(t, s.AwaitPeers(ctx))
}

// TestDCOSDeletedAgents: what is deleted is gone from the answer, and what it
// held is leased again after it has rested.
func TestDCOSDeletedAgents(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	noDocker := object{"network_config": object{"docker_bridge": false}}
	for _, h := range s.Agents() {
		conf := must[[]byte](t)(s.AgentJSON(noDocker))
		s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, conf))
		c := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "c", Conf: scene.CNI("dcos")}))
		check(t, c.Delete(ctx))
	}
	before := wantStates(t, s, []string{"dcos"}, s.A, s.B)
	remove := func(body string) (int, object) {
		code, answer, err := s.Master.HTTP(ctx, http.MethodPost, s.Master.CoordinatorURL()+"/overlay-master/agents/delete", []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		var out object
		check(t, json.Unmarshal(answer, &out))
		return code, out
	}
	for body, says := range map[string]string{
		`{"agents": ["172.17.0.4", "nonsense"]}`: "nothing is deleted",
		`{"agents": ["172.17.0.4"]}`:             "these agents are alive: 172.17.0.4",
	} {
		if code, answer := remove(body); code < 400 || !strings.Contains(fmt.Sprint(answer), says) {
			t.Errorf("%s is answered %d %v", body, code, answer)
		}
	}
	same(t, "after what was refused", masterState(t, s), before)
	check(t, s.Companions["a"].Stop(ctx))
	check(t, s.Coordinator.Stop(ctx))
	check(t, s.StartCoordinator(ctx, "--alive-ttl=1s", "--quarantine=1s"))
	within, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	var after object
	check(t, lab.Until(within, "the delete of a silent agent", func(context.Context) error {
		code, answer := remove(`{"agents": ["172.17.0.4", "10.9.9.9"]}`)
		if code != http.StatusOK {
			return fmt.Errorf("%d %v", code, answer)
		}
		after = answer
		return nil
	}))
	if entryOf(after, s.A) != nil || len(after["agents"].([]any)) != 1 {
		t.Errorf("the answer is %s", indent(after))
	}
	same(t, "the other agent", entryOf(after, s.B), entryOf(before, s.B))
	same(t, "the state", masterState(t, s), after)
	untilHost(t, s.B, "no peer", lacks("44.128.0.1 "), "ip neigh show dev vtep1024")

	// It comes back as a new one: what was never leased goes first.
	conf := must[[]byte](t)(s.AgentJSON(noDocker))
	s.Companions["a"] = must[*lab.Process](t)(s.A.StartCompanion(ctx, conf))
	back := overlayOf(entryOf(wantStates(t, s, []string{"dcos"}, s.A, s.B), s.A), "dcos")
	if back["subnet"] != "9.0.2.0/24" {
		t.Errorf("the agent that came back has %s", indent(back))
	}
}

// TestDCOSImport takes over the state of a DC/OS cluster, whose hosts then
// start with their old addresses, in whatever order.
func TestDCOSImport(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Coordinator.Stop(ctx))
	const path = "/root/state.json"
	check(t, s.Master.WriteFile(ctx, path, scene.StateJSON))
	check(t, s.StartCoordinator(ctx, "--import", path))
	var sample object
	check(t, json.Unmarshal(scene.StateJSON, &sample))

	for _, h := range s.Agents() {
		must[*lab.Process](t)(h.StartDocker(ctx))
	}
	for _, h := range []*lab.Host{s.B, s.A, s.Master} {
		check(t, s.StartCompanion(ctx, h))
	}
	state := wantStates(t, s, []string{"dcos", "dcos6"}, s.Master, s.A, s.B)
	same(t, "the network", state["network"], sample["network"])
	for _, h := range []*lab.Host{s.Master, s.A, s.B} {
		same(t, "host "+h.Name, entryOf(state, h), entryOf(sample, h))
	}
	check(t, s.AwaitPeers(ctx))
	untilHost(t, s.A, "the old VTEP", has("70:b3:d5:80:00:02", "inet 44.128.0.2/20", "inet6 fd01:a::2/64"), "ip addr show dev vtep1024")
	crowd := must[[]scene.Member](t)(s.Crowd(ctx))
	for _, m := range crowd {
		halves := overlayOf(entryOf(sample, m.Host), m.Overlay)[strings.ToLower(m.Kind)+"_bridge"].(object)
		field := "ip"
		if m.Addr().Is6() {
			field = "ip6"
		}
		if half := netip.MustParsePrefix(halves[field].(string)); !half.Contains(m.Addr()) {
			t.Errorf("%s on %s has %s, which is not of its old %s", m.Name, m.Overlay, m.Addr(), half)
		}
	}
	seen, err := crowd[len(crowd)/2-1].Dial(ctx, serverOf(crowd[0].Container))
	if err != nil {
		t.Errorf("a container of the imported cluster does not reach another: %v, %v", seen, err)
	}
}
