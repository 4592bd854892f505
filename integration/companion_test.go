package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// awaitState waits until the coordinator shows overlay dcos of host a so.
func awaitState(t *testing.T, s *scene.Scene, status lease.Status, says string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, fmt.Sprintf("%s with %q", status, says), func(ctx context.Context) error {
		state, err := s.State(ctx)
		if err != nil {
			return err
		}
		for _, a := range state.Agents {
			for _, o := range a.Overlays {
				if a.IP != s.A.Addr || o.Info.Name != "dcos" {
					continue
				}
				if o.State.Status == status && strings.Contains(o.State.Error, says) {
					t.Logf("%s %s", o.State.Status, o.State.Error)
					return nil
				}
				return fmt.Errorf("it is %s, %q", o.State.Status, o.State.Error)
			}
		}
		return fmt.Errorf("agent %s has no overlay dcos", s.A.Addr)
	}))
}

// TestStatusSaysWhatIsWrong takes host a through what can be wrong with its
// Docker Engine; Mesos's containers work all the time.
func TestStatusSaysWhatIsWrong(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.StartCompanion(ctx, s.A))
	awaitState(t, s, lease.StatusFailed, "Docker Engine not reachable at unix:///var/run/docker.sock")
	c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "m", Conf: scene.CNI("dcos")}))
	check(t, c.Delete(ctx))

	// Docker comes up without a network of this name, and gets one.
	docker := must[*lab.Process](t)(s.A.StartDocker(ctx))
	awaitState(t, s, lease.StatusOK, "")

	// Somebody puts another network in its place.
	check(t, s.Companions["a"].Stop(ctx))
	for _, args := range [][]string{{"rm", "dcos"}, {"create", "--subnet", "10.99.0.0/24", "dcos"}} {
		must[string](t)(s.A.Run(ctx, append([]string{"docker", "network"}, args...)...))
	}
	check(t, s.StartCompanion(ctx, s.A))
	awaitState(t, s, lease.StatusFailed, "10.99.0.0/24")
	must[string](t)(s.A.Run(ctx, "docker", "network", "inspect", "dcos"))
	must[string](t)(s.A.Run(ctx, "docker", "network", "rm", "dcos"))
	awaitState(t, s, lease.StatusOK, "")

	check(t, docker.Stop(ctx))
	awaitState(t, s, lease.StatusFailed, "not reachable")
}

// TestCompanionServesMesosAndTools: the files that it writes are what Mesos
// needs, and its own entry is the coordinator's.
func TestCompanionServesMesosAndTools(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))
	var conf struct {
		CNIDir string `json:"cni_dir"`
	}
	check(t, json.Unmarshal(must[[]byte](t)(s.AgentJSON(nil)), &conf))
	for _, overlay := range []string{"dcos", "dcos6"} {
		file := must[[]byte](t)(s.A.ReadFile(ctx, path.Join(conf.CNIDir, overlay+".conf")))
		c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "from-" + overlay, Conf: file}))
		if (overlay == "dcos") != c.IP4.IsValid() || (overlay == "dcos6") != c.IP6.IsValid() {
			t.Errorf("overlay %s gave %s", overlay, c.Result)
		}
		check(t, c.Delete(ctx))
	}
	wantStates(t, s, []string{"dcos", "dcos6"}, s.Master, s.A, s.B)
}

// TestDeletedAgentComesBack: an operator deletes an agent that is alive, which
// takes force, and the companion claims anew.
func TestDeletedAgentComesBack(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))
	before := must[masterstate.State](t)(s.State(ctx))
	url := s.Master.CoordinatorURL() + "/overlay-master/agents/delete"
	code, body, err := s.Master.HTTP(ctx, http.MethodPost, url, []byte(`{"agents":["172.17.0.4"]}`))
	if err != nil || code != http.StatusConflict || !strings.Contains(string(body), "these agents are alive: 172.17.0.4") {
		t.Fatalf("delete without force answers %d %s, %v", code, body, err)
	}
	code, body, err = s.Master.HTTP(ctx, http.MethodPost, url, []byte(`{"agents":["172.17.0.4"],"force":true}`))
	if err != nil || code != http.StatusOK {
		t.Fatalf("delete answers %d %s, %v", code, body, err)
	}
	ctx, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	check(t, lab.Until(ctx, "the agent to come back", func(ctx context.Context) error {
		after, err := s.State(ctx)
		if err != nil {
			return err
		}
		if len(after.Agents) != len(before.Agents) {
			return fmt.Errorf("there are %d agents", len(after.Agents))
		}
		for _, a := range after.Agents {
			for _, o := range a.Overlays {
				if a.IP == s.A.Addr && o.State.Status != lease.StatusOK {
					return fmt.Errorf("overlay %s is %+v", o.Info.Name, o.State)
				}
			}
		}
		return s.AwaitPeers(ctx)
	}))
	a := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "a", Conf: scene.CNI("dcos")}))
	b := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "b", Conf: scene.CNI("dcos")}))
	must[*lab.Process](t)(a.Serve(ctx, scene.Port))
	awaitReach(t, &b.Place, serverOf(a), b.IP4)
}

// TestHostWithoutSubnet: a host that takes no subnets still reaches containers.
func TestHostWithoutSubnet(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	configure(t, s, s.B, nil)
	b := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "b", Conf: scene.CNI("dcos")}))
	must[*lab.Process](t)(b.Serve(ctx, scene.Port))
	conf := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": map[string]any{"allocate_subnet": false}}))
	s.Companions["a"] = must[*lab.Process](t)(s.A.StartCompanion(ctx, conf))
	// Host b, without companion, hears of it with its next overlay.
	must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "b6", Conf: scene.CNI("dcos6")}))
	check(t, lab.Until(ctx, "the way to host b", func(ctx context.Context) error {
		out, err := s.A.Run(ctx, "ip", "route", "show", "proto", "44")
		if err == nil && !strings.Contains(out, "9.0.0.0/24") {
			err = fmt.Errorf("the routes are %q", out)
		}
		return err
	}))
	seen, err := s.A.Dial(ctx, serverOf(b))
	if err != nil || seen.Addr().String() != "44.128.0.2" {
		t.Errorf("host a is seen as %s, %v; want its VTEP address", seen, err)
	}
}
