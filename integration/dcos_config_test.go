package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// TestDCOSNetworkConfig changes an agent's network_config: its lease stays
// through it all, the host follows, and the state shows it.
func TestDCOSNetworkConfig(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))
	both := []string{"dcos", "dcos6"}
	before := wantStates(t, s, both, s.Master, s.A, s.B)
	const devices = "ip -o link; docker network ls"
	names := []string{"m-dcos:", "m-dcos6:", "d-dcos:", "d-dcos6:"}
	config := func(fields object) {
		t.Helper()
		restart(t, s, s.A, object{"network_config": fields})
	}

	config(object{"mesos_bridge": false, "docker_bridge": false})
	off := wantStates(t, s, both, s.Master, s.A, s.B)
	for _, name := range both {
		was, now := overlayOf(entryOf(before, s.A), name), overlayOf(entryOf(off, s.A), name)
		delete(was, "mesos_bridge")
		delete(was, "docker_bridge")
		same(t, name+" without bridges", now, was)
	}
	untilHost(t, s.A, "no bridges", lacks(append(names, " dcos ")...), devices)
	r := must[lab.Result](t)(s.A.MesosAdd(ctx, lab.MesosTask{ID: "c", Conf: scene.CNI("dcos"), Netns: "/proc/self/ns/net"}))
	if r.Code == 0 {
		t.Error("a host without bridges takes a container")
	}

	config(object{"allocate_subnet": false})
	wantStates(t, s, both, s.B)
	kept := overlayOf(entryOf(masterState(t, s), s.A), "dcos")
	if kept == nil || kept["subnet"] != "9.0.1.0/24" {
		t.Errorf("what is leased is taken from an agent that allocates no more: %s", indent(kept))
	}

	config(nil)
	on := wantStates(t, s, both, s.Master, s.A, s.B)
	var sample object
	decode(t, scene.StateJSON, &sample)
	same(t, "with all on again", entryOf(on, s.A), entryOf(sample, s.A))
	untilHost(t, s.A, "all bridges", has(append(names, " dcos ", " dcos6 ")...), devices)
	c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "back", Conf: scene.CNI("dcos")}))
	check(t, c.Delete(ctx))
}

// TestDCOSMTU: overlay_mtu is that of containers on one agent, vtep_mtu that of
// every VTEP, and what does not fit the underlay is told.
func TestDCOSMTU(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Coordinator.Stop(ctx))
	// A new cluster: vtep_mtu is not changed at runtime.
	must[string](t)(s.Master.Run(ctx, "sh", "-c", "rm -rf /var/lib/dcos-overlay-coordinator/*"))
	config := strings.Replace(string(scene.MasterJSON), `"vtep_mac_oui"`, `"vtep_mtu": 1430, "vtep_mac_oui"`, 1)
	s.Coordinator = must[*lab.Process](t)(s.Master.StartCoordinator(ctx, lab.CoordinatorOptions{Config: []byte(config)}))
	must[*lab.Process](t)(s.A.StartDocker(ctx))
	both := []string{"dcos", "dcos6"}
	s.Companions["a"] = must[*lab.Process](t)(s.A.StartCompanion(ctx, must[[]byte](t)(s.AgentJSON(nil))))
	state := wantStates(t, s, both, s.A)
	vxlan := overlayOf(entryOf(state, s.A), "dcos")["backend"].(object)["vxlan"].(object)
	same(t, "the VTEP", vxlan, object{
		"vni": 1024.0, "vtep_ip": "44.128.0.1/20", "vtep_ip6": "fd01:a::1/64", "vtep_mac": "70:b3:d5:80:00:01",
		"vtep_name": "vtep1024", "vtep_mtu": 1430.0,
	})
	same(t, "vtep_mtu of the network", state["network"].(object)["vtep_mtu"], 1430.0)
	mtus := func(overlay int) {
		t.Helper()
		links := "ip -o link; docker network inspect dcos dcos6"
		untilHost(t, s.A, "MTUs", has("vtep1024: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1430 ", fmt.Sprintf(`"com.docker.network.driver.mtu": "%d"`, overlay)), links)
		untilHost(t, s.A, "MTUs of bridges", has(fmt.Sprintf("mtu %d ", overlay)), "ip -o link show m-dcos6")
		c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: fmt.Sprint("c", overlay), Conf: scene.CNI("dcos")}))
		if out := must[string](t)(c.Run(ctx, "ip", "-o", "link", "show", "eth0")); !strings.Contains(out, fmt.Sprintf("mtu %d ", overlay)) {
			t.Errorf("a container has %s", out)
		}
		check(t, c.Delete(ctx))
	}
	mtus(1420)
	restart(t, s, s.A, object{"network_config": object{"overlay_mtu": 1400}})
	wantStates(t, s, both, s.A)
	mtus(1400)
	restart(t, s, s.A, object{"network_config": object{"overlay_mtu": 9000}})
	wantStates(t, s, both, s.A)
	mtus(9000)
	code, health, err := s.A.HTTP(ctx, http.MethodGet, "http://127.0.0.1:64002/healthz", nil)
	if err != nil || code != http.StatusOK || !strings.Contains(string(health), "overlay_mtu is 9000, and eth0, whose MTU is 1500, takes 1450 inside VXLAN") {
		t.Errorf("of an MTU that does not fit it says %d %s, %v", code, health, err)
	}
	restart(t, s, s.A, nil)
	wantStates(t, s, both, s.A)
	mtus(1420)
}

// TestDCOSIPv6: an agent without IPv6 has no part in it until it has.
func TestDCOSIPv6(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	must[*lab.Process](t)(s.A.StartDocker(ctx))
	start := func(on bool) {
		t.Helper()
		changes := object{"network_config": object{"enable_ipv6": on}}
		if s.Companions["a"] != nil {
			restart(t, s, s.A, changes)
			return
		}
		s.Companions["a"] = must[*lab.Process](t)(s.A.StartCompanion(ctx, must[[]byte](t)(s.AgentJSON(changes))))
	}
	start(false)
	entry := entryOf(wantStates(t, s, []string{"dcos"}, s.A), s.A)
	vxlan := overlayOf(entry, "dcos")["backend"].(object)["vxlan"].(object)
	if _, there := vxlan["vtep_ip6"]; there {
		t.Errorf("without IPv6 the VTEP is %s", indent(vxlan))
	}
	untilHost(t, s.A, "no IPv6 address of ours", lacks("fd01:"), "ip -6 -o addr")
	_, err := s.A.MesosContainer(ctx, lab.MesosTask{ID: "c6", Conf: scene.CNI("dcos6")})
	if err == nil || !strings.Contains(err.Error(), "enable_ipv6 false") {
		t.Errorf("a container on IPv6 is answered %v", err)
	}
	start(true)
	entry = entryOf(wantStates(t, s, []string{"dcos", "dcos6"}, s.A), s.A)
	if o := overlayOf(entry, "dcos6"); o["subnet6"] != "fd01:b::/80" {
		t.Errorf("with IPv6 there is %s", indent(o))
	}
	c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "with6", Conf: scene.CNI("dcos6")}))
	check(t, c.Delete(ctx))
}
