package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// operator calls dcos-overlayctl on one host.
type operator struct {
	*testing.T
	host *lab.Host
}

// run wants an exit status, and parts of what is printed to either stream.
func (o operator) run(code int, args string, want ...string) string {
	o.Helper()
	r, err := o.host.Exec(o.Context(), lab.Command{Args: append([]string{"dcos-overlayctl"}, strings.Fields(args)...)})
	if err != nil {
		o.Fatal(err)
	}
	if r.Code != code {
		o.Errorf("%s: exit status %d, want %d: %s%s", args, r.Code, code, r.Stdout, r.Stderr)
	}
	for _, w := range want {
		if !strings.Contains(r.Stdout+r.Stderr, w) {
			o.Errorf("%s: %q is not in:\n%s%s", args, w, r.Stdout, r.Stderr)
		}
	}
	if strings.Contains(r.Stdout+r.Stderr, "\x1b") {
		o.Errorf("%s: there are colours, and no terminal: %q", args, r.Stdout+r.Stderr)
	}
	return r.Stdout
}

// TestCtl plays an operator's day on the sample cluster.
func TestCtl(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	conf := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false, "mesos_bridge": false}}))
	for _, h := range []*lab.Host{s.Master, s.A, s.B} {
		s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, conf))
	}
	o := operator{t, s.A}
	within, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	check(t, lab.Until(within, "all agents to be alive", func(ctx context.Context) error {
		out, err := s.A.Run(ctx, "dcos-overlayctl", "status", "-o", "json")
		if err == nil && !strings.Contains(out, `"alive": 3`) {
			err = fmt.Errorf("status says %s", out)
		}
		return err
	}))
	t.Logf("status:\n%s", o.run(0, "status", "ready", "dcos6", "9.0.0.0/8 in /24"))
	t.Logf("agents:\n%s", o.run(0, "agents", "172.17.0.3", "70:b3:d5:80:00:03", "alive"))
	t.Logf("agents IP:\n%s", o.run(0, "agents 172.17.0.4", "44.128.0.2/20", "9.0.1.0/24", "mesos_bridge false"))
	o.run(4, "agents 172.17.0.99", "172.17.0.99")
	o.run(2, "agents here", "is not the address of an agent")

	watch := must[*lab.Process](t)(s.B.Start(ctx, "watch", "dcos-overlayctl", "watch"))
	check(t, watch.WaitLog(ctx, "synced"))
	o.run(0, "overlay create web --subnet 10.20.0.0/16 --prefix 26", "web", "10.20.0.0/16 in /26")
	check(t, watch.WaitLog(ctx, "network overlays dcos, dcos6, web"))
	o.run(2, "overlay create web --subnet 10.21.0.0/16 --prefix 26", "is there already")
	o.run(4, "overlay create clash --subnet 10.20.5.0/24 --prefix 26", "10.20.")
	o.run(2, "overlay create bad --subnet 10.20", `--subnet: "10.20" is not an address range`)
	o.run(0, "overlay disable web", "disabled")
	check(t, watch.WaitLog(ctx, "web (disabled)"))
	o.run(0, "overlay enable web", "enabled")
	o.run(4, "overlay enable none", "none")
	o.run(0, "overlay set web --isolated", "enabled, isolated")
	o.run(0, "overlay set web --isolated=false --static-subnet 10.20.255.0/24 --static-takeover 90s --max-subnets 3 --docker-prefix 28",
		"10.20.255.0/24", "1m30s", "/28 of each", "3 subnets")
	o.run(4, "overlay set web --static-subnet 10.21.0.0/24", "10.21.0.0/24")
	o.run(0, "overlay reserve web 10.20.255.5 role=db", "role=db")
	o.run(4, "overlay reserve web 10.20.0.5 role=db", "can't be reserved")
	o.run(0, "overlay addresses web", "10.20.255.5", "role=db")
	o.run(0, "overlay unreserve web 10.20.255.5", "is ended")
	o.run(4, "overlay unreserve web 10.20.255.5", "is not reserved")
	o.run(0, "overlays web", "most an agent")
	o.run(2, "overlay delete web", "Give --yes")
	o.run(0, "overlays", "web")
	o.run(0, "overlay delete web --force --yes", "overlay web is deleted")
	o.run(0, "watch --help", "interrupted")
	if out := o.run(0, "overlays -o yaml", "name: dcos6"); strings.Contains(out, "web") {
		t.Errorf("after the delete there is\n%s", out)
	}

	state := o.run(0, "export")
	var exported masterstate.State
	if err := json.Unmarshal([]byte(state), &exported); err != nil || len(exported.Agents) != 3 {
		t.Errorf("export prints %v, %s", err, state)
	}
	check(t, s.A.WriteFile(ctx, "/tmp/state.json", []byte(state)))
	o.run(0, "validate /tmp/state.json", "ok, a state")
	o.run(0, "import /tmp/state.json --yes", "UNCHANGED")
	o.run(2, "import /tmp/state.json", "Give --yes")
	o.run(2, "import /etc/dcos-overlay/agent.json --yes", "is not a state")

	o.run(4, "agents delete 172.17.0.3 --yes", "alive")
	check(t, s.Companions["b"].Stop(ctx))
	o.run(0, "agents delete 172.17.0.3 --force --yes", "deleted 1 agent")
	check(t, watch.WaitLog(ctx, "delete 172.17.0.3"))
	check(t, s.Companions["a"].Stop(ctx))
	o.run(4, "agents release 172.17.0.2 --yes", "172.17.0.2")
	o.run(0, "agents release 172.17.0.4 --overlay dcos --yes", "of overlay dcos")
	o.run(0, "agents release 172.17.0.4 --yes", "released all")
	o.run(4, "agents 172.17.0.4")

	o.run(0, "version", "dcos-overlayctl")
	o.run(0, "completion bash", "bash completion")
	o.run(2, "nonsense", "there is no command")
	o.run(2, "status --output xml", "table, json or yaml")
	o.run(3, "status --coordinator 172.17.0.2:1", "no coordinator answered")
	o.run(0, "status --coordinator 172.17.0.2:1,172.17.0.2", "connection refused", "ready")
	check(t, s.Coordinator.Kill())
	o.run(3, "overlays", "no coordinator answered")
}
