package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types020 "github.com/containernetworking/cni/pkg/types/020"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/agentconf"
)

// configure writes a host's agent file, for a host without companion.
func configure(t *testing.T, s *scene.Scene, h *lab.Host, changes map[string]any) {
	t.Helper()
	conf := must[[]byte](t)(s.AgentJSON(changes))
	check(t, h.WriteFile(t.Context(), agentconf.DefaultPath, conf))
}

// traces are what of ours is on a host, as text; empty when nothing is.
func traces(t *testing.T, h *lab.Host) string {
	t.Helper()
	out, err := h.Run(t.Context(), "sh", "-c", `
		ip -o link | grep -oE '(vtep[0-9]+|[md]-[a-z0-9]+|dov[0-9a-f]+)'
		ip route show proto 44; ip -6 route show proto 44
		iptables-save | grep DCOS-OVERLAY; ip6tables-save | grep DCOS-OVERLAY
		find /run/dcos-overlay /var/run/dcos -type f -name '[0-9]*' 2>/dev/null
		true`)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// metric reads one of the coordinator's, summed over its labels.
func metric(t *testing.T, s *scene.Scene, name string) (sum float64) {
	t.Helper()
	code, body, err := s.A.HTTP(t.Context(), http.MethodGet, s.Master.CoordinatorURL()+"/metrics", nil)
	if err != nil || code != http.StatusOK {
		t.Fatalf("metrics: %d, %v", code, err)
	}
	found := regexp.MustCompile(`(?m)^`+name+`(?:\{.*\})? (\S+)$`).FindAllStringSubmatch(string(body), -1)
	for _, m := range found {
		v, err := strconv.ParseFloat(m[1], 64)
		check(t, err)
		sum += v
	}
	if found == nil {
		t.Fatalf("there is no metric %s", name)
	}
	return sum
}

func TestResultHasTheVersionThatIsAskedFor(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	configure(t, s, s.A, nil)
	for version, decode := range map[string]func([]byte) error{
		"": func(b []byte) error {
			r, err := types020.NewResult(b)
			if err == nil && (r.(*types020.Result).IP4 == nil || r.Version() != "0.2.0") {
				err = fmt.Errorf("no ip4 in a result of version %s", r.Version())
			}
			return err
		},
		"1.0.0": func(b []byte) error {
			r, err := types100.NewResult(b)
			if err == nil && (len(r.(*types100.Result).IPs) != 1 || len(r.(*types100.Result).Interfaces) != 3 || r.Version() != "1.0.0") {
				err = fmt.Errorf("not a whole result of 1.0.0")
			}
			return err
		},
	} {
		conf := map[string]any{"name": "dcos", "type": "dcos-overlay"}
		if version != "" {
			conf["cniVersion"] = version
		}
		text := must[[]byte](t)(json.Marshal(conf))
		// cnitool's libcni fills in no version, and DELs as it ADDs.
		c := must[*lab.Container](t)(s.A.CNIToolContainer(ctx, "c"+version, text))
		if err := decode(c.Result); err != nil {
			t.Errorf("version %q: %v: %s", version, err, c.Result)
		}
		check(t, c.Delete(ctx))
	}
	// What the plugin itself prints to Mesos.
	c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "m", Conf: scene.CNI("dcos")}))
	var raw struct {
		CNIVersion string
		IP4        struct{ IP, Gateway string }
	}
	check(t, json.Unmarshal(c.Result, &raw))
	if raw.CNIVersion != "0.2.0" || !strings.HasPrefix(raw.IP4.IP, "9.0.0.") || raw.IP4.Gateway != "9.0.0.1" {
		t.Errorf("Mesos gets %s", c.Result)
	}
	check(t, c.Delete(ctx))
}

func TestLaunchWithoutCoordinator(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))
	first := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "first", Conf: scene.CNI("dcos")}))
	remote := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "remote", Conf: scene.CNI("dcos")}))
	must[*lab.Process](t)(remote.Serve(ctx, scene.Port))
	to := netip.AddrPortFrom(remote.IP4, scene.Port)
	stream := must[*lab.Stream](t)(first.Stream(ctx, to, 8*time.Second))

	check(t, s.Coordinator.Kill())
	for i := range 5 {
		began := time.Now()
		c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: fmt.Sprint("later", i), Conf: scene.CNI("dcos")}))
		t.Logf("container %d without coordinator: %s after %s", i, c.IP4, time.Since(began).Round(time.Millisecond))
		if seen := must[netip.AddrPort](t)(c.Dial(ctx, to)); seen.Addr() != c.IP4 {
			t.Errorf("the other host saw %s, not %s", seen, c.IP4)
		}
		check(t, c.Delete(ctx))
	}
	// With the coordinator away, the companion comes and goes as well; what
	// is on the host before and after is the same.
	before := must[string](t)(s.A.Run(ctx, "sh", "-c", wire))
	check(t, s.Companions["a"].Stop(ctx))
	if after := must[string](t)(s.A.Run(ctx, "sh", "-c", wire)); after != before {
		t.Errorf("the companion's stop changed the host:\n%s\nto\n%s", before, after)
	}
	check(t, s.StartCompanion(ctx, s.A))
	if after := must[string](t)(s.A.Run(ctx, "sh", "-c", wire)); after != before {
		t.Errorf("the companion's start changed the host:\n%s\nto\n%s", before, after)
	}
	check(t, s.StartCoordinator(ctx))
	gap, err := stream.Wait(ctx)
	if err != nil {
		t.Errorf("the stream broke: %v", err)
	}
	t.Logf("longest gap of the stream: %s", gap)
}

// wire prints all that packets of the overlays depend on.
// What the kernel does by itself a second after a device came up is left out:
// addresses that are no longer tentative, and groups that they join.
const wire = `ip -o addr | sed 's/ tentative//'; ip route; ip -6 route; ip neigh show nud permanent; bridge fdb | grep -vE '^(33:33|01:00:5e):'; iptables-save | grep -v '^[#:]'; ip6tables-save | grep -v '^[#:]'`

func TestNoCoordinatorAndNoLease(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Coordinator.Kill())
	configure(t, s, s.A, nil)
	_, err := s.A.Run(ctx, "ip", "netns", "add", "c1")
	check(t, err)
	began := time.Now()
	r := must[lab.Result](t)(s.A.MesosAdd(ctx, lab.MesosTask{ID: "c1", Conf: scene.CNI("dcos"), Netns: "/run/netns/c1"}))
	took := time.Since(began)
	var failure types.Error
	if err := json.Unmarshal([]byte(r.Stdout), &failure); err != nil || r.Code == 0 {
		t.Fatalf("exit %d, %v: %s", r.Code, err, r.Stdout)
	}
	t.Logf("after %s: %s", took.Round(time.Millisecond), failure.Msg)
	if failure.Code != types.ErrTryAgainLater {
		t.Errorf("the code is %d, want %d (try again later)", failure.Code, types.ErrTryAgainLater)
	}
	for _, want := range []string{s.Master.CoordinatorURL(), "overlay dcos", "172.17.0.4", "connection refused"} {
		if !strings.Contains(failure.Msg, want) {
			t.Errorf("%q is not in the message", want)
		}
	}
	if strings.Contains(failure.Msg, "\n") {
		t.Error("the message has more than one line")
	}
	// 10 s is what a claim may take; the rest is a busy machine's.
	if took > 20*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	if left := traces(t, s.A); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	r = must[lab.Result](t)(s.A.MesosDel(ctx, lab.MesosTask{ID: "c1", Conf: scene.CNI("dcos")}))
	if r.Code != 0 {
		t.Errorf("DEL fails: %s", r.Stdout)
	}
}

func TestFortyFirstContainersAtOnce(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	configure(t, s, s.A, nil)
	const n = 40
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	containers := make([]*lab.Container, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			c, err := s.A.MesosContainer(ctx, lab.MesosTask{ID: fmt.Sprint("c", i), Conf: scene.CNI("dcos")})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			containers[i] = c
			if other, ok := seen[c.IP4]; ok {
				t.Errorf("%s and c%d both have %s", other, i, c.IP4)
			}
			seen[c.IP4] = fmt.Sprint("c", i)
		})
	}
	wg.Wait()
	t.Logf("%d containers after %s", len(seen), time.Since(began).Round(time.Millisecond))
	if len(seen) != n {
		t.Fatalf("%d addresses for %d containers", len(seen), n)
	}
	if claims := metric(t, s, "dcos_overlay_coordinator_claims_total"); claims != 1 {
		t.Errorf("there were %v claims, want 1", claims)
	}
	state, err := s.State(ctx)
	check(t, err)
	if len(state.Agents) != 1 || len(state.Agents[0].Overlays) != 1 {
		t.Errorf("the state has %+v", state.Agents)
	}
	bridges := must[string](t)(s.A.Run(ctx, "ip", "-o", "link", "show", "type", "bridge"))
	if strings.Count(bridges, "\n") != 1 || !strings.Contains(bridges, "m-dcos") {
		t.Errorf("the bridges are:\n%s", bridges)
	}
	for _, c := range containers {
		wg.Go(func() {
			if err := c.Delete(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	out := must[string](t)(s.A.Run(ctx, "sh", "-c",
		`ip -o link | grep -E 'dov|veth'; find /run/dcos-overlay /var/run/dcos -type f -name '9.*'; ls /run/netns 2>/dev/null; true`))
	if out != "" {
		t.Errorf("after all DELs there is left:\n%s", out)
	}
}

func TestWithoutCompanion(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	configure(t, s, s.A, nil)
	configure(t, s, s.B, nil)
	a := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "a", Conf: scene.CNI("dcos")}))
	b := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "b", Conf: scene.CNI("dcos")}))
	// B knows A since its claim; A learns of B on its next cold path, which a
	// container of another overlay takes.
	must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "a6", Conf: scene.CNI("dcos6")}))
	must[*lab.Process](t)(a.Serve(ctx, scene.Port))
	if seen := must[netip.AddrPort](t)(b.Dial(ctx, netip.AddrPortFrom(a.IP4, scene.Port))); seen.Addr() != b.IP4 {
		t.Errorf("seen as %s, not %s", seen, b.IP4)
	}
	state, err := s.State(ctx)
	check(t, err)
	for _, agent := range state.Agents {
		for _, o := range agent.Overlays {
			if o.State.Status != "STATUS_OK" {
				t.Errorf("agent %s, overlay %s: %+v; the plugin reports where no companion does", agent.IP, o.Info.Name, o.State)
			}
		}
	}
}

// TestRebootWithoutCoordinator: the lease and the peers that were known are on
// disk, and that is enough.
func TestRebootWithoutCoordinator(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	configure(t, s, s.A, nil)
	configure(t, s, s.B, nil)
	b := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "b", Conf: scene.CNI("dcos")}))
	a := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "a", Conf: scene.CNI("dcos")}))
	subnet := netip.PrefixFrom(a.IP4, 25).Masked()
	must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "b6", Conf: scene.CNI("dcos6")}))
	check(t, s.Coordinator.Kill())
	check(t, s.A.Reboot(ctx))

	// Mesos cleans up after the reboot, with no namespace to name.
	r := must[lab.Result](t)(s.A.MesosDel(ctx, lab.MesosTask{ID: "a", Conf: scene.CNI("dcos")}))
	if r.Code != 0 {
		t.Errorf("DEL after a reboot fails: %s %s", r.Stdout, r.Stderr)
	}
	again := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "again", Conf: scene.CNI("dcos")}))
	if !subnet.Contains(again.IP4) {
		t.Errorf("%s is not of the subnet of before, %s", again.IP4, subnet)
	}
	must[*lab.Process](t)(b.Serve(ctx, scene.Port))
	if seen := must[netip.AddrPort](t)(again.Dial(ctx, netip.AddrPortFrom(b.IP4, scene.Port))); seen.Addr() != again.IP4 {
		t.Errorf("seen as %s, not %s", seen, again.IP4)
	}
}

// TestIPAMUnderBridge uses dcos-ipam alone, under the stock bridge plugin.
func TestIPAMUnderBridge(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	configure(t, s, s.A, nil)
	conf := []byte(`{"cniVersion":"1.0.0","name":"plain","type":"bridge","bridge":"br0","isGateway":true,"ipam":{"type":"dcos-ipam","overlay":"dcos"}}`)
	one := must[*lab.Container](t)(s.A.CNIToolContainer(ctx, "one", conf))
	two := must[*lab.Container](t)(s.A.CNIToolContainer(ctx, "two", conf))
	must[*lab.Process](t)(one.Serve(ctx, scene.Port))
	if seen := must[netip.AddrPort](t)(two.Dial(ctx, netip.AddrPortFrom(one.IP4, scene.Port))); seen.Addr() != two.IP4 {
		t.Errorf("seen as %s, not %s", seen, two.IP4)
	}
	for _, c := range []*lab.Container{one, two} {
		check(t, c.Delete(ctx))
	}
	if left := must[string](t)(s.A.Run(ctx, "sh", "-c", `find /run/dcos-overlay /var/run/dcos -name '9.*'`)); left != "" {
		t.Errorf("reserved after DEL: %s", left)
	}
}

// TestErrorsThatATaskShows are failures as a framework's user reads them.
func TestErrorsThatATaskShows(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	configure(t, s, s.A, nil)
	_, err := s.A.Run(ctx, "ip", "netns", "add", "c1")
	check(t, err)
	add := func(conf string, info map[string]any) types.Error {
		t.Helper()
		r := must[lab.Result](t)(s.A.MesosAdd(ctx, lab.MesosTask{ID: "c1", Conf: []byte(conf), NetworkInfo: info, Netns: "/run/netns/c1"}))
		var failure types.Error
		if err := json.Unmarshal([]byte(r.Stdout), &failure); err != nil || r.Code == 0 {
			t.Fatalf("exit %d, %v: %s", r.Code, err, r.Stdout)
		}
		return failure
	}
	dcos := string(scene.CNI("dcos"))
	for name, tt := range map[string]struct {
		conf string
		info map[string]any
		code uint
		says []string
	}{
		"no such overlay": {string(scene.CNI("nope")), nil, 102, []string{"nope", "dcos6"}},
		"foreign address": {dcos, map[string]any{"ip_addresses": []any{map[string]any{"ip_address": "1.2.3.4"}}}, 104, []string{"1.2.3.4", "9.0.0.0/25"}},
		"foreign IPAM":    {`{"name":"dcos","type":"dcos-overlay","ipam":{"type":"dhcp"}}`, nil, 7, []string{"dhcp", "dcos-ipam"}},
		"no agent file":   {`{"name":"dcos","type":"dcos-overlay","agentConfig":"/nowhere.json"}`, nil, 7, []string{"/nowhere.json"}},
	} {
		failure := add(tt.conf, tt.info)
		t.Logf("%s: %d %s", name, failure.Code, failure.Msg)
		if failure.Code != tt.code {
			t.Errorf("%s: code %d, want %d", name, failure.Code, tt.code)
		}
		for _, want := range tt.says {
			if !strings.Contains(failure.Msg, want) {
				t.Errorf("%s: %q is not in %q", name, want, failure.Msg)
			}
		}
	}
	// A second ADD of the same container is refused and harms nothing.
	c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "c2", Conf: scene.CNI("dcos")}))
	r := must[lab.Result](t)(s.A.MesosAdd(ctx, lab.MesosTask{ID: "c2", Conf: scene.CNI("dcos"), Netns: c.Netns}))
	if !strings.Contains(r.Stdout, `"code": 103`) {
		t.Errorf("a second ADD says %s", r.Stdout)
	}
	must[*lab.Process](t)(c.Serve(ctx, scene.Port))
	if _, err := s.A.Dial(ctx, netip.AddrPortFrom(c.IP4, scene.Port)); err != nil {
		t.Errorf("the container lost its network by the refused ADD: %v", err)
	}
}
