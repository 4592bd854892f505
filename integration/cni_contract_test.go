package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	types020 "github.com/containernetworking/cni/pkg/types/020"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/agentconf"
)

// TestIsolatorContract: what Mesos's network/cni isolator promises and wants,
// each in a test of its own.
func TestIsolatorContract(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	first := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "first", Conf: scene.CNI("dcos")}))

	t.Run("both binaries are in one directory, and it need hold no other", func(t *testing.T) {
		_, err := h.Run(ctx, "sh", "-ec", `mkdir -p /opt/mesos/cni && cp "$0/dcos-overlay" "$0/dcos-ipam" /opt/mesos/cni`, plugins(t))
		check(t, err)
		c := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "two-binaries", Conf: scene.CNI("dcos"), PluginsDir: "/opt/mesos/cni"}))
		check(t, c.Delete(ctx))
	})
	t.Run("no cniVersion gets the shape of 0.1 and 0.2", func(t *testing.T) {
		for overlay, families := range families {
			c := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "shape-" + overlay, Conf: scene.CNI(overlay)}))
			var r types020.Result
			if err := strictly(c.Result, &r); err != nil || (r.IP4 != nil) != (families[0] > 0) || (r.IP6 != nil) != (families[1] > 0) {
				t.Errorf("%s: %v: %s", overlay, err, c.Result)
			}
			check(t, c.Delete(ctx))
		}
	})
	t.Run("the handle is not under /var/run/netns, and the environment has nothing else", func(t *testing.T) {
		if !strings.HasPrefix(first.Netns, "/run/mesos/") {
			t.Errorf("the handle is %s", first.Netns)
		}
		if out := must[string](t)(first.Run(ctx, "ip", "-o", "-4", "addr", "show", "eth0")); !strings.Contains(out, first.IP4.String()) {
			t.Errorf("eth0 is %s", out)
		}
	})
	t.Run("the rest of NetworkInfo is ignored", func(t *testing.T) {
		info := map[string]any{
			"groups": []string{"public"}, "labels": map[string]any{"labels": []any{map[string]any{"key": "app", "value": "nginx"}}},
			"ip_addresses": []any{map[string]any{"protocol": "IPv4"}}, "something": map[string]any{"of": "later"},
		}
		c := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "info", Conf: scene.CNI("dcos"), NetworkInfo: info}))
		check(t, c.Delete(ctx))
	})
	t.Run("an address that is asked for is the one that is given", func(t *testing.T) {
		info := map[string]any{"ip_addresses": []any{map[string]any{"protocol": "IPv4", "ip_address": "9.0.0.99"}}}
		c := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "asked", Conf: scene.CNI("dcos"), NetworkInfo: info}))
		if c.IP4 != netip.MustParseAddr("9.0.0.99") {
			t.Errorf("got %s", c.IP4)
		}
		check(t, c.Delete(ctx))
	})
	t.Run("executor and agent reach each other as they are", func(t *testing.T) {
		must[*lab.Process](t)(h.Serve(ctx, 5051))
		must[*lab.Process](t)(first.Serve(ctx, scene.Port))
		if seen := must[netip.AddrPort](t)(first.Dial(ctx, netip.AddrPortFrom(h.Addr, 5051))); seen.Addr() != first.IP4 {
			t.Errorf("the agent sees %s, not %s", seen, first.IP4)
		}
		must[netip.AddrPort](t)(h.Dial(ctx, serverOf(first)))
	})
	t.Run("several networks have eth0, eth1, eth2", func(t *testing.T) { severalNetworks(t, s) })
	t.Run("DEL from the checkpointed configuration after the agent's file changed", func(t *testing.T) { delAfterChange(t, s) })
	t.Run("DEL without CNI_NETNS after a wiped /run", func(t *testing.T) {
		c := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "wiped", Conf: scene.CNI("dcos"), NetworkInfo: mesosPorts(31500)}))
		_, err := h.Run(ctx, "sh", "-c", "rm -rf /run/dcos-overlay /run/dcos")
		check(t, err)
		task := lab.MesosTask{ID: "wiped", Conf: scene.CNI("dcos"), NetworkInfo: mesosPorts(31500)}
		if r := must[lab.Result](t)(h.MesosDel(ctx, task)); r.Code != 0 {
			t.Errorf("DEL fails: %s %s", r.Stdout, r.Stderr)
		}
		if out := must[string](t)(h.Run(ctx, "iptables-save", "-t", "nat")); strings.Contains(out, "31500") {
			t.Errorf("the port mappings are still there:\n%s", out)
		}
		check(t, c.Delete(ctx))
	})
	t.Run("a failed ADD is one line that a user understands", func(t *testing.T) {
		netns := newNetns(t, h, "line")
		r := must[lab.Result](t)(h.MesosAdd(ctx, lab.MesosTask{ID: "line", Conf: scene.CNI("off"), Netns: netns}))
		var failure struct{ Msg string }
		if err := json.Unmarshal([]byte(r.Stdout), &failure); err != nil || !strings.Contains(failure.Msg, "disabled") || strings.Contains(failure.Msg, "\n") {
			t.Errorf("%v: %s", err, r.Stdout)
		}
	})
	t.Run("DEL of what was never there, or twice, succeeds", func(t *testing.T) {
		for range 2 {
			if r := must[lab.Result](t)(h.MesosDel(ctx, lab.MesosTask{ID: "never", Conf: scene.CNI("dcos"), NetworkInfo: mesosPorts(31600)})); r.Code != 0 {
				t.Errorf("DEL fails: %s", r.Stdout)
			}
		}
	})
	t.Run("wrapped by a port mapper", func(t *testing.T) { wrapped(t, s) })
	t.Run("wrapped by a port mapper, which knows no IPv6", func(t *testing.T) { wrappedIPv6(t, s) })
	check(t, first.Delete(ctx))
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// severalNetworks puts one container on two IPv4 overlays and one of IPv6.
func severalNetworks(t *testing.T, s *scene.Scene) {
	ctx := t.Context()
	h := s.A
	// Hosts learn of each other's new subnets.
	conf := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}, "cni_dir": ""}))
	for _, h := range s.Agents() {
		companion := must[*lab.Process](t)(h.StartCompanion(ctx, conf))
		defer func() { check(t, companion.Stop(ctx)) }()
	}
	c := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "multi", Conf: scene.CNI("dcos")}))
	must[*lab.Process](t)(c.Serve(ctx, scene.Port))
	addrs := map[string]netip.Addr{"dcos": c.IP4}
	for ifname, overlay := range map[string]string{"eth1": "dcos6", "eth2": "alt"} {
		r := must[lab.Result](t)(h.MesosAdd(ctx, lab.MesosTask{ID: "multi", Conf: scene.CNI(overlay), Ifname: ifname, Netns: c.Netns}))
		if r.Code != 0 {
			t.Fatalf("%s: %s", overlay, r.Stdout)
		}
		addrs[overlay] = addrsOf(resultOf(t, []byte(r.Stdout), ""))[0]
	}
	for overlay, addr := range addrs {
		to := netip.AddrPortFrom(addr, scene.Port)
		for _, from := range []*lab.Host{h, s.B} {
			peer := must[*lab.Container](t)(from.MesosContainer(ctx, lab.MesosTask{ID: "peer-" + overlay, Conf: scene.CNI(overlay)}))
			want := peer.IP4
			if overlay == "dcos6" {
				want = peer.IP6
			}
			awaitReach(t, &peer.Place, to, want)
			must[*lab.Process](t)(peer.Serve(ctx, scene.Port))
			awaitReach(t, &c.Place, netip.AddrPortFrom(want, scene.Port), addr)
			check(t, peer.Delete(ctx))
		}
		must[netip.AddrPort](t)(h.Dial(ctx, to))
	}
	for ifname, overlay := range map[string]string{"eth2": "alt", "eth1": "dcos6"} {
		if r := must[lab.Result](t)(h.MesosDel(ctx, lab.MesosTask{ID: "multi", Conf: scene.CNI(overlay), Ifname: ifname, Netns: c.Netns})); r.Code != 0 {
			t.Errorf("%s: %s", overlay, r.Stdout)
		}
	}
	if links := must[string](t)(c.Run(ctx, "ip", "-o", "link")); strings.Contains(links, "eth1") || strings.Contains(links, "eth2") || !strings.Contains(links, "eth0") {
		t.Errorf("the container has %s", links)
	}
	check(t, c.Delete(ctx))
}

// delAfterChange takes away one by one what a DEL might want to go by.
func delAfterChange(t *testing.T, s *scene.Scene) {
	ctx := t.Context()
	h := s.A
	const names = "moved gone broken unleased overlay"
	var tasks []lab.MesosTask
	for _, id := range strings.Fields(names) {
		task := lab.MesosTask{ID: id, Conf: scene.CNI("alt")}
		must[*lab.Container](t)(h.MesosContainer(ctx, task))
		tasks = append(tasks, task)
	}
	before := len(reservedOn(t, h))
	for i, change := range []func(){
		func() { configure(t, s, h, map[string]any{"cni_data_dir": "/run/elsewhere"}) },
		func() {
			_, err := h.Run(ctx, "rm", agentconf.DefaultPath)
			check(t, err)
		},
		func() { check(t, h.WriteFile(ctx, agentconf.DefaultPath, []byte("{"))) },
		func() {
			_, err := h.Run(ctx, "rm", "-r", "/var/lib/dcos-overlay")
			check(t, err)
		},
		func() {
			check(t, s.Coordinator.Kill())
			_, err := h.Run(ctx, "ip", "link", "del", "m-alt")
			check(t, err)
		},
	} {
		change()
		if r := must[lab.Result](t)(h.MesosDel(ctx, tasks[i])); r.Code != 0 {
			t.Errorf("%s: %s %s", tasks[i].ID, r.Stdout, r.Stderr)
		}
		if n := before - len(reservedOn(t, h)); n != i+1 {
			t.Errorf("%s: %d addresses are free, not %d", tasks[i].ID, n, i+1)
		}
	}
	s.Coordinator = must[*lab.Process](t)(s.Master.StartCoordinator(ctx, lab.CoordinatorOptions{}))
	configure(t, s, h, nil)
}

// TestAskedFor: addresses and MAC by every way to ask for them.
func TestAskedFor(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	const v4, v6, mac = "10.64.0.33", "fd01:d::33", "02:00:5e:10:00:01"
	netns := newNetns(t, h, "c")
	for name, change := range map[string]struct {
		conf map[string]any
		args string
	}{
		"runtimeConfig": {conf: map[string]any{"runtimeConfig": map[string]any{"ips": []string{v4 + "/25", v6}, "mac": mac}}},
		"CNI_ARGS":      {args: "IgnoreUnknown=1;IP=" + v4 + "," + v6 + ";MAC=" + mac},
		"args.cni":      {conf: map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{v4, v6}}}}, args: "MAC=" + mac},
		"both at once":  {conf: map[string]any{"runtimeConfig": map[string]any{"ips": []string{v4, v6}, "mac": mac}}, args: "IP=" + v4},
	} {
		c := cniCall{Verb: "ADD", ID: "c", Netns: netns, Ifname: "net0", Args: change.args, Conf: netConf("dual", "1.1.0")}.with(change.conf)
		result := resultOf(t, c.ok(t, h).stdout, "1.1.0")
		if got := fmt.Sprint(addrsOf(result)); got != "["+v4+" "+v6+"]" {
			t.Errorf("%s: got %s", name, got)
		}
		out := must[string](t)(h.Run(t.Context(), "ip", "-n", "c", "addr", "show", "net0"))
		for _, want := range []string{v4, v6, mac} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %s is not in %s", name, want, out)
			}
		}
		if result.Interfaces[2].Mac != mac || result.Interfaces[2].Name != "net0" {
			t.Errorf("%s: %+v", name, result.Interfaces[2])
		}
		c.verb("DEL").ok(t, h)
	}
	// An interface's name that the container has already is not taken away.
	taken := cniCall{Verb: "ADD", ID: "c", Netns: netns, Ifname: "lo", Conf: netConf("dual", "1.1.0")}
	taken.fails(t, h, 103, "lo")
	if out := must[string](t)(h.Run(t.Context(), "ip", "-n", "c", "-o", "link")); !strings.Contains(out, "lo:") {
		t.Errorf("lo is gone: %s", out)
	}
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestChain: cnitool with a list of plugins, before and after ours.
func TestChain(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	_, err := h.Run(ctx, "iptables", "-P", "FORWARD", "DROP")
	check(t, err)
	for _, v := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		conf := fmt.Appendf(nil, `{"cniVersion": %q, "name": "dcos", "plugins": [
			{"type": "loopback"},
			{"type": "dcos-overlay", "ipam": {"type": "dcos-ipam"}, "capabilities": {"ips": true, "mac": true}},
			{"type": "portmap", "capabilities": {"portMappings": true}},
			{"type": "firewall"},
			{"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mac": "02:00:5e:10:00:07"}]}`, v)
		id := "chain" + strings.ReplaceAll(v, ".", "")
		env := `CAP_ARGS={"portMappings":[{"hostPort":31000,"containerPort":8080,"protocol":"tcp"}],"ips":["9.0.0.42"]}`
		c := must[*lab.Container](t)(h.CNIToolContainer(ctx, id, conf, env))
		result := resultOf(t, c.Result, v)
		var names []string
		for _, i := range result.Interfaces {
			names = append(names, i.Name)
		}
		if !slices.Contains(addrsOf(result), netip.MustParseAddr("9.0.0.42")) || !slices.Contains(names, "lo") || !slices.Contains(names, "eth0") {
			t.Errorf("%s: %v, %v", v, names, addrsOf(result))
		}
		must[*lab.Process](t)(c.Serve(ctx, scene.Port))
		c.IP4 = netip.MustParseAddr("9.0.0.42")
		if seen := must[netip.AddrPort](t)(s.Lab.Outside.Dial(ctx, netip.AddrPortFrom(h.Addr, 31000))); seen.Addr() != lab.Router4 {
			t.Errorf("%s: seen as %s", v, seen)
		}
		tool := []string{"env", "CNI_PATH=" + plugins(t), "NETCONFPATH=/etc/cni/net.d", env, "cnitool"}
		_, err := h.Run(ctx, append(tool, "check", "dcos", c.Netns)...)
		check(t, err)
		if v == "1.1.0" {
			_, err := h.Run(ctx, append(tool, "status", "dcos", c.Netns)...)
			check(t, err)
			_, err = h.Run(ctx, append(tool, "gc", "dcos", c.Netns)...)
			check(t, err)
		}
		// A chain of which CHECK finds a part missing.
		if v != "1.1.0" {
			_, err = h.Run(ctx, "ip", "-n", id, "route", "del", "default")
			check(t, err)
			if out, err := h.Run(ctx, append(tool, "check", "dcos", c.Netns)...); err == nil || !strings.Contains(err.Error(), "no route to 0.0.0.0/0") {
				t.Errorf("%s: CHECK without the default route: %v %s", v, err, out)
			}
		}
		check(t, c.Delete(ctx))
		if left := nothingOf(t, h); left != "" {
			t.Errorf("%s: left behind:\n%s", v, left)
		}
	}
}
