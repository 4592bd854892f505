package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/agentconf"
)

// TestStatus says why an ADD would fail, and changes nothing.
func TestStatus(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	status := func(overlay string) cniCall { return cniCall{Verb: "STATUS", Conf: netConf(overlay, "1.1.0")} }
	status("dcos").ok(t, h)
	if left := traces(t, h); left != "" {
		t.Errorf("STATUS has made:\n%s", left)
	}
	if agents := must[int](t)(agentCount(t, s)); agents != 0 {
		t.Errorf("STATUS has claimed for %d agents", agents)
	}
	status("nope").fails(t, h, 50, "nope")
	status("off").fails(t, h, 50, "disabled")
	for _, plugin := range []string{"dcos-overlay", "dcos-ipam"} {
		c := status("dcos")
		c.Plugin = plugin
		check(t, s.Coordinator.Kill())
		c.fails(t, h, 50, "no lease", s.Master.CoordinatorURL())
		s.Coordinator = must[*lab.Process](t)(s.Master.StartCoordinator(ctx, lab.CoordinatorOptions{}))
		c.ok(t, h)
	}

	// tiny has 5 addresses for Mesos containers: half of 16, less three.
	add := cniCall{Verb: "ADD", ID: "c", Conf: netConf("tiny", "1.1.0")}
	for i := range 5 {
		add.ID = fmt.Sprint("c", i)
		add.Netns = newNetns(t, h, add.ID)
		status("tiny").ok(t, h)
		add.ok(t, h)
	}
	// This agent has one of the overlay's 16 subnets, nobody else has any.
	status("tiny").fails(t, h, 50, "5 of 5 addresses of [10.66.0.0/29]", "15 of the overlay's 16 subnets can still be claimed")
	add.ID, add.Netns = "too-many", newNetns(t, h, "too-many")
	add.fails(t, h, 100, "5 of 5 addresses of [10.66.0.0/29]", "15 of the overlay's 16 subnets can still be claimed")

	// Of the two subnets of grows each agent may have both.
	putOverlay(t, s, "grows", `{"subnet": "10.90.0.0/27", "prefix": 28, "max_subnets": 2}`)
	for i := range 5 {
		c := cniCall{Verb: "ADD", ID: fmt.Sprint("g", i), Netns: newNetns(t, h, fmt.Sprint("g", i)), Conf: netConf("grows", "1.1.0")}
		c.ok(t, h)
	}
	status("grows").ok(t, h)
	must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "far", Conf: scene.CNI("grows")}))
	status("grows").fails(t, h, 50, "5 of 5 addresses", "none is free: agents hold 2")
	more := cniCall{Verb: "ADD", ID: "g5", Netns: newNetns(t, h, "g5"), Conf: netConf("grows", "1.1.0")}
	more.fails(t, h, 100, "5 of 5 addresses", "no free /28 of 10.90.0.0/27: 2 leased")
	// This agent, which has no companion, has not heard of the other's.
	for _, a := range []answer{more.run(t, h), status("grows").run(t, h)} {
		if a.failure == nil || strings.Contains(a.failure.Msg, "can still be claimed") || strings.Count(a.failure.Msg, "STATUS") > 1 {
			t.Errorf("where nothing is left: %+v", a.failure)
		}
	}

	add.ID = "c4"
	_, err := h.Run(ctx, "ip", "link", "del", "vtep1024")
	check(t, err)
	status("tiny").fails(t, h, 51, "5 of 5")
	// With a lease, and something to mend that an ADD mends, it is well.
	check(t, s.Coordinator.Kill())
	add.verb("DEL").ok(t, h)
	status("tiny").ok(t, h)
	configure(t, s, h, map[string]any{"network_config": map[string]any{"mesos_bridge": false}})
	status("tiny").fails(t, h, 51, "mesos_bridge", agentconf.DefaultPath)
}

// TestStatusWithoutIPv6: a kernel with IPv6 off is played by an empty
// /proc/sys/net/ipv6, for the plugin alone.
func TestStatusWithoutIPv6(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	for overlay, want := range map[string]string{"dcos": "", "dual": "ipv6.disable=1", "dcos6": "ipv6.disable=1"} {
		c := cniCall{Verb: "ADD", ID: overlay, Netns: newNetns(t, h, overlay), Conf: netConf(overlay, "1.1.0")}
		c.ok(t, h)
		status := c.verb("STATUS")
		status.Under = []string{"unshare", "--mount", "sh", "-ec", `mount -t tmpfs none /proc/sys/net/ipv6; exec "$0"`}
		if want == "" {
			status.ok(t, h)
		} else {
			status.fails(t, h, types.ErrPluginNotAvailable, want, "enable_ipv6")
		}
		c.verb("STATUS").ok(t, h)
		c.verb("DEL").ok(t, h)
	}
}

func agentCount(t *testing.T, s *scene.Scene) (int, error) {
	t.Helper()
	state, err := s.State(t.Context())
	return len(state.Agents), err
}

// TestCheckFindsEachPart takes the parts of an attachment away one by one.
func TestCheckFindsEachPart(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	for name, tt := range map[string]struct {
		// breaks is a shell command; $1 is the container's namespace.
		breaks string
		says   []string
	}{
		"reservation": {`find /run/dcos -name '10.64.*' -exec rm {} +`, []string{"10.64.0.", "is not reserved"}},
		"address":     {`ip -n "$1" addr flush dev eth0 scope global`, []string{"no address 10.64.0.", "no address fd01:d::"}},
		"route":       {`ip -n "$1" -6 route del default`, []string{"no route to ::/0"}},
		"MAC":         {`ip -n "$1" link set eth0 address 02:00:00:00:00:07`, []string{"has MAC 02:00:00:00:00:07"}},
		"interface":   {`ip -n "$1" link del eth0`, []string{"find veth dov", "find interface eth0"}},
		"bridge port": {`ip link set "$(ip -o link | grep -oE 'dov[0-9a-f]+')" nomaster`, []string{"not on bridge m-dual"}},
		"down":        {`ip link set "$(ip -o link | grep -oE 'dov[0-9a-f]+')" down`, []string{"is not up"}},
	} {
		id := "c-" + name[:3]
		c := cniCall{Verb: "ADD", ID: id, Netns: newNetns(t, h, id), Conf: netConf("dual", "1.0.0")}
		c = c.with(map[string]any{"prevResult": prevOf(t, c.ok(t, h))})
		c.verb("CHECK").ok(t, h)
		_, err := h.Run(t.Context(), "sh", "-ec", tt.breaks, "sh", id)
		check(t, err)
		c.verb("CHECK").fails(t, h, 105, append(tt.says, id)...)
		c.verb("DEL").ok(t, h)
	}
	c := cniCall{Verb: "CHECK", ID: "c", Netns: newNetns(t, h, "c"), Conf: netConf("dual", "1.0.0")}
	c.fails(t, h, 7, "prevResult")
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
