package integration

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// TestIsolationOfFixedAndFurther is TestIsolation's question for containers
// whose addresses are not of their agent's first subnet: fixed ones, and those
// of further subnets. While the overlay is isolated one of each kind comes and
// goes, for no rule is made for a container or a subnet.
func TestIsolationOfFixedAndFurther(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx := t.Context()
	// Half of an agent's first subnet has one IPv4 address for containers, and
	// no more than three of IPv6.
	body := func(n int, isolated bool) string {
		return fmt.Sprintf(`{"subnet": "10.%[1]d.0.0/16", "prefix": 29, "subnet6": "fd01:%[1]d::/64", "prefix6": 125,
			"static_subnet": "10.%[1]d.255.0/24", "static_subnet6": "fd01:%[1]d:0:0:ffff::/80", "isolated": %[2]v}`, n, isolated)
	}
	putOverlay(t, s, "red", body(20, false))
	putOverlay(t, s, "blue", body(30, false))
	conf := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}}))
	for _, h := range s.Agents() {
		s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, conf))
	}
	must[*lab.Process](t)(s.Lab.Outside.Serve(ctx, scene.Port))

	fixed := func(overlay string, n, last int, on *lab.Host) resident {
		task := fixedTask(fmt.Sprint("fixed-", overlay, last), nil,
			netip.MustParseAddr(fmt.Sprintf("10.%d.255.%d", n, last)), netip.MustParseAddr(fmt.Sprintf("fd01:%d:0:0:ffff::%d", n, last)))
		task.Conf = scene.CNI(overlay)
		return serving(t, on, overlay, "fixed", task)
	}
	further := func(overlay string, on *lab.Host) resident {
		for i := range 8 {
			r := serving(t, on, overlay, "further", lab.MesosTask{ID: fmt.Sprint("c", i, "-", overlay), Conf: scene.CNI(overlay)})
			held := heldOf(t, s, on, overlay)
			if !held.Subnets[0].Contains(r.IP4) && !held.Subnets6[0].Contains(r.IP6) {
				return r
			}
		}
		t.Fatalf("host %s has no further subnet of %s after 8 containers", on.Name, overlay)
		return resident{}
	}
	var all []resident
	for i, h := range s.Agents() {
		all = append(all, fixed("red", 20, 10+i, h), further("red", h), fixed("blue", 30, 10+i, h), further("blue", h))
	}
	reachable(t, all, false)
	isolate := func(isolated bool) {
		t.Helper()
		url := s.Master.CoordinatorURL() + "/v1/overlays/red"
		code, answer, err := s.Master.HTTP(ctx, http.MethodPut, url, []byte(body(20, isolated)))
		if err != nil || code != http.StatusOK {
			t.Fatalf("switch red: %d %s, %v", code, answer, err)
		}
	}
	isolate(true)
	reachable(t, all, true)

	// The first of red's fixed addresses goes to host b, and more containers of
	// red come: with their addresses' routes nothing opens.
	check(t, all[0].Delete(ctx))
	all[0] = fixed("red", 20, 10, s.B)
	had := len(heldOf(t, s, s.A, "red").Subnets)
	for i := 0; len(heldOf(t, s, s.A, "red").Subnets) == had; i++ {
		if i == 8 {
			t.Fatal("host a has no more subnets of red after 8 containers")
		}
		all[1] = serving(t, s.A, "red", "further", lab.MesosTask{ID: fmt.Sprint("more", i), Conf: scene.CNI("red")})
	}
	held := heldOf(t, s, s.A, "red")
	if !slices.ContainsFunc(held.Subnets[had:], func(p netip.Prefix) bool { return p.Contains(all[1].IP4) }) {
		t.Fatalf("the last container of red on host a has %s, which is not of what was claimed last: %v", all[1].IP4, held.Subnets)
	}
	reachable(t, all, true)
	isolate(false)
	reachable(t, all, false)
}

// serving starts a container that serves.
func serving(t *testing.T, on *lab.Host, overlay, kind string, task lab.MesosTask) resident {
	t.Helper()
	c := must[*lab.Container](t)(on.MesosContainer(t.Context(), task))
	if !c.IP4.IsValid() || !c.IP6.IsValid() {
		t.Fatalf("container %s lacks an address: %s", task.ID, c.Result)
	}
	must[*lab.Process](t)(c.Serve(t.Context(), scene.Port))
	return resident{c, on, overlay, kind}
}
