package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// narrowOverlay has subnets of 16 addresses, of which 5 are for Mesos
// containers: those of a half, less network, gateway and broadcast.
const narrowOverlay = `{"subnet": "10.40.0.0/20", "prefix": 28, "max_subnets": 8}`

// TestMoreSubnetsOnDemand runs ten times as many containers on a host as its
// half of a subnet has addresses for.
func TestMoreSubnetsOnDemand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		// kill says that the coordinator dies while containers start.
		kill bool
	}{{"with a coordinator", false}, {"with one that is killed on the way", true}} {
		t.Run(tt.name, func(t *testing.T) { moreSubnets(t, tt.kill) })
	}
}

func moreSubnets(t *testing.T, kill bool) {
	s := newScene(t)
	ctx := t.Context()
	putOverlay(t, s, "narrow", narrowOverlay)
	conf := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}}))
	for _, h := range s.Agents() {
		s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, conf, "--interval", "1s", "--extra-subnet-hold", "5s"))
	}
	far := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "far", Conf: scene.CNI("narrow")}))

	const many = 60
	all := make([]*lab.Container, many)
	var group sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	start := func(i int) {
		defer group.Done()
		task := lab.MesosTask{ID: fmt.Sprint("c", i), Conf: scene.CNI("narrow")}
		for {
			c, err := s.A.MesosContainer(ctx, task)
			if err == nil {
				all[i] = c
				return
			}
			// Without coordinator a full agent says so, and the framework
			// tries again.
			if !kill || !strings.Contains(err.Error(), "no coordinator grants one now") || ctx.Err() != nil {
				t.Errorf("container %d: %v", i, err)
				return
			}
			mu.Lock()
			refused++
			mu.Unlock()
		}
	}
	began := time.Now()
	group.Add(many)
	for i := range many / 3 {
		go start(i)
	}
	if kill {
		// The first third is more than fits what host a holds at first.
		within, cancel := context.WithTimeout(ctx, hang)
		defer cancel()
		check(t, lab.Until(within, "host a to hold three subnets", func(context.Context) error {
			if o := heldOf(t, s, s.A, "narrow"); o == nil || len(o.Subnets) < 3 {
				return errors.New("it holds fewer")
			}
			return nil
		}))
		check(t, s.Coordinator.Kill())
	}
	for i := many / 3; i < many; i++ {
		go start(i)
	}
	if kill {
		within, cancel := context.WithTimeout(ctx, hang)
		defer cancel()
		check(t, lab.Until(within, "an ADD to be refused", func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if refused == 0 {
				return errors.New("none was")
			}
			return nil
		}))
		check(t, s.StartCoordinator(ctx))
	}
	group.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d containers after %s, %d ADDs refused meanwhile", many, time.Since(began).Round(time.Millisecond), refused)

	seen := map[netip.Addr]bool{}
	for _, c := range all {
		if seen[c.IP4] {
			t.Errorf("%s was given twice", c.IP4)
		}
		seen[c.IP4] = true
		must[*lab.Process](t)(c.Serve(ctx, scene.Port))
	}
	within, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	for _, c := range all {
		check(t, lab.Until(within, "far to reach "+c.ID, func(ctx context.Context) error {
			from, err := far.Dial(ctx, serverOf(c))
			if err == nil && from.Addr() != far.IP4 {
				err = fmt.Errorf("far is seen as %s", from)
			}
			return err
		}))
	}
	// On the same host, from the first subnet to the last.
	for _, c := range []*lab.Container{all[0], all[many-1]} {
		for _, to := range all {
			if to != c {
				must[netip.AddrPort](t)(c.Dial(ctx, serverOf(to)))
			}
		}
	}
	state := must[string](t)(stateText(ctx, s))
	if n := strings.Count(state, `"extra_subnets"`); n != 1 {
		t.Errorf("the state has extra_subnets %d times:\n%s", n, state)
	}
	// 5 and then 13 a subnet: 5 + 5*13 >= 60.
	if n := len(heldOf(t, s, s.A, "narrow").Subnets); n != 6 {
		t.Errorf("host a holds %d subnets, not 6", n)
	}

	for _, c := range all {
		check(t, c.Delete(ctx))
	}
	within, cancel = context.WithTimeout(ctx, hang)
	defer cancel()
	check(t, lab.Until(within, "the further subnets to be given back", func(ctx context.Context) error {
		if n := len(heldOf(t, s, s.A, "narrow").Subnets); n != 1 {
			return fmt.Errorf("host a holds %d subnets", n)
		}
		if out := must[string](t)(s.A.Run(ctx, "ip", "-4", "-o", "addr", "show", "m-narrow")); strings.Count(out, "\n") != 1 {
			return fmt.Errorf("the bridge has %s", out)
		}
		if out := must[string](t)(s.B.Run(ctx, "ip", "route", "show", "proto", "44")); strings.Count(out, "10.40.") != 1 {
			return fmt.Errorf("host b has the routes %s", out)
		}
		return nil
	}))
	again := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "again", Conf: scene.CNI("narrow")}))
	must[*lab.Process](t)(again.Serve(ctx, scene.Port))
	must[netip.AddrPort](t)(far.Dial(ctx, serverOf(again)))
}

// TestFullWithoutCoordinator: the message says that there might be more.
func TestFullWithoutCoordinator(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	putOverlay(t, s, "narrow", narrowOverlay)
	putOverlay(t, s, "single", `{"subnet": "10.50.0.0/20", "prefix": 28, "max_subnets": 1}`)
	check(t, s.A.WriteFile(ctx, "/etc/dcos-overlay/agent.json", must[[]byte](t)(s.AgentJSON(nil))))
	for _, overlay := range []string{"narrow", "single"} {
		for i := range 5 {
			must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: fmt.Sprint(overlay, i), Conf: scene.CNI(overlay)}))
		}
	}
	_, err := s.A.MesosContainer(ctx, lab.MesosTask{ID: "one-more", Conf: scene.CNI("single")})
	if want := "and it gets no further subnet: it holds 1, and max_subnets is 1"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a full agent with max_subnets 1 says %v", err)
	}
	check(t, s.Coordinator.Kill())
	_, err = s.A.MesosContainer(ctx, lab.MesosTask{ID: "one-more", Conf: scene.CNI("narrow")})
	const want = "5 of 5 addresses of [10.40.0.0/29] are in use on this agent, and it gets no further subnet: no coordinator grants one now: "
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"code": 100`) {
		t.Errorf("a full agent without coordinator says %v", err)
	}
}

// putOverlay makes an overlay by the coordinator's API.
func putOverlay(t *testing.T, s *scene.Scene, name, body string) {
	t.Helper()
	code, answer, err := s.Master.HTTP(t.Context(), http.MethodPut, s.Master.CoordinatorURL()+"/v1/overlays/"+name, []byte(body))
	if err != nil || code != http.StatusCreated {
		t.Fatalf("make overlay %s: %d %s, %v", name, code, answer, err)
	}
}

// heldOf is what a host holds of an overlay, by the coordinator; nil where it
// holds nothing.
func heldOf(t *testing.T, s *scene.Scene, h *lab.Host, overlay string) *lease.Overlay {
	t.Helper()
	code, body, err := s.Master.HTTP(t.Context(), http.MethodGet, s.Master.CoordinatorURL()+"/v1/agents/"+h.Addr.String(), nil)
	if err == nil && code == http.StatusNotFound {
		return nil
	}
	if err != nil || code != http.StatusOK {
		t.Fatalf("agent %s: %d %s, %v", h.Addr, code, body, err)
	}
	var a api.AgentResponse
	check(t, json.Unmarshal(body, &a))
	return a.Overlay(overlay)
}

func stateText(ctx context.Context, s *scene.Scene) (string, error) {
	code, body, err := s.A.HTTP(ctx, http.MethodGet, s.Master.CoordinatorURL()+"/overlay-master/state", nil)
	if err == nil && code != http.StatusOK {
		err = errors.New(http.StatusText(code))
	}
	return string(body), err
}
