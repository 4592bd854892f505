package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// wideJSON has 509 addresses for each agent's Mesos containers.
const wideJSON = `{
  "network": {
    "vtep_subnet": "44.128.0.0/20",
    "vtep_mac_oui": "70:B3:D5:00:00:00",
    "overlays": [{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 22}]
  }
}`

// plainCNI has an address of ours on a bridge that is not ours.
const plainCNI = `{"cniVersion":"1.0.0","name":"plain","type":"bridge","bridge":"br0","ipam":{"type":"dcos-ipam","overlay":"dcos"}}`

// leakStore is where the sample agent's reservations are.
const leakStore = "/var/run/dcos/cni/networks/dcos"

// leakHost is a host with a companion that soon takes a vanished container for
// dead.
type leakHost struct {
	*lab.Host
	companion *lab.Process
}

func newLeakHost(t *testing.T) *leakHost {
	t.Helper()
	ctx := t.Context()
	l := must[*lab.Lab](t)(lab.New(lab.Options{Bin: bin}))
	t.Cleanup(func() { check(t, l.Close()) })
	s := &scene.Scene{Lab: l}
	s.Master = must[*lab.Host](t)(l.AddHost(ctx, "master", netip.MustParseAddr("172.17.0.2")))
	s.A = must[*lab.Host](t)(l.AddHost(ctx, "a", netip.MustParseAddr("172.17.0.4")))
	must[*lab.Process](t)(s.Master.StartCoordinator(ctx, lab.CoordinatorOptions{Config: []byte(wideJSON)}))
	conf := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}}))
	h := &leakHost{Host: s.A}
	h.companion = must[*lab.Process](t)(s.A.StartCompanion(ctx, conf, "--interval", "1s", "--leak-grace", "2s"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the companion's log:\n%s", h.companion.Log())
		}
	})
	return h
}

// reserved are the addresses in the store, with their owners' containers.
func (h *leakHost) reserved(ctx context.Context) (map[netip.Addr]string, error) {
	out, err := h.Run(ctx, "sh", "-c", `cd "$0" && grep -H . [0-9]* || true`, leakStore)
	if err != nil {
		return nil, err
	}
	all := map[netip.Addr]string{}
	for line := range strings.Lines(out) {
		file, text, _ := strings.Cut(strings.TrimSpace(line), ":")
		addr, err := netip.ParseAddr(file)
		// The second line is the interface.
		if err == nil && all[addr] == "" {
			all[addr] = text
		}
	}
	return all, nil
}

// each runs f for the ids, some at a time, as an agent starts containers.
func each(t *testing.T, ids []string, f func(ctx context.Context, id string) error) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for _, id := range ids {
		group.Go(func() error { return f(ctx, id) })
	}
	check(t, group.Wait())
}

func ids(name string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(name, "-", i)
	}
	return out
}

// attach puts namespaces that have a handle and no process on the overlay.
func (h *leakHost) attach(t *testing.T, conf string, ids []string) {
	t.Helper()
	script := `for n; do ip netns add "$n"; ip -n "$n" link set lo up; done`
	must[string](t)(h.Run(t.Context(), append([]string{"sh", "-ec", script, "sh"}, ids...)...))
	each(t, ids, func(ctx context.Context, id string) error {
		r, err := h.MesosAdd(ctx, lab.MesosTask{ID: id, Conf: []byte(conf), Netns: "/run/netns/" + id})
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("attach %s: %s %s", id, r.Stdout, r.Stderr)
		}
		return err
	})
}

// vanish removes namespaces that attach made, without DEL.
func (h *leakHost) vanish(t *testing.T, ids []string) {
	t.Helper()
	must[string](t)(h.Run(t.Context(), append([]string{"sh", "-ec", `for n; do ip netns del "$n"; done`, "sh"}, ids...)...))
}

// signal sends a signal to all processes in the container's namespace.
func (h *leakHost) signal(ctx context.Context, c *lab.Container, signal string) error {
	_, err := h.Run(ctx, "sh", "-ec", `
		inode=$(stat -Lc %i "$0")
		pids=$(find /proc/[0-9]*/ns/net -maxdepth 0 -lname "net:\[$inode\]" 2>/dev/null | cut -d/ -f3)
		kill -s "$1" $pids`, c.Netns, signal)
	return err
}

// portRules counts what leads from ports of the host to containers.
func (h *leakHost) portRules(t *testing.T) int {
	t.Helper()
	out := must[string](t)(h.Run(t.Context(), "sh", "-c", `iptables-save -t nat | grep -e '-j DNAT' || true`))
	return strings.Count(out, "\n")
}

// TestLeakedAddressesAreFreed: 200 containers vanish without DEL, 50 live on
// in ways that make them look dead, in namespaces whose numbers are those of
// the dead.
func TestLeakedAddressesAreFreed(t *testing.T) {
	h := newLeakHost(t)
	ctx := t.Context()
	began := time.Now()
	step := func(what string) {
		t.Helper()
		t.Logf("%5.1f s: %s", time.Since(began).Seconds(), what)
	}
	dcos := string(scene.CNI("dcos"))

	gone, goneBridge, goneTask := ids("gone", 130), ids("gone-bridge", 50), ids("gone-task", 20)
	h.attach(t, dcos, gone)
	h.attach(t, plainCNI, goneBridge)
	tasks := make([]*lab.Container, len(goneTask))
	start := func(ctx context.Context, id string) (err error) {
		i := slices.Index(goneTask, id)
		task := lab.MesosTask{ID: id, Conf: []byte(dcos)}
		if i < 3 {
			task.NetworkInfo = map[string]any{"port_mappings": []any{map[string]any{"host_port": 31000 + i, "container_port": 80}}}
		}
		tasks[i], err = h.MesosContainer(ctx, task)
		return err
	}
	// The first makes the mount below which all have their handles.
	check(t, start(ctx, goneTask[0]))
	each(t, goneTask[1:], start)
	if all := must[map[netip.Addr]string](t)(h.reserved(ctx)); len(all) != 200 {
		t.Fatalf("%d addresses are reserved, not 200", len(all))
	}
	if n := h.portRules(t); n < 3 {
		t.Errorf("%d rules map the ports of 3 containers", n)
	}
	step("200 containers have addresses")
	h.vanish(t, slices.Concat(gone, goneBridge))
	for _, c := range tasks {
		check(t, h.signal(ctx, c, "KILL"))
		must[string](t)(h.Run(ctx, "umount", c.Netns))
	}
	step("200 containers vanished")

	living := h.live(t)
	step("50 containers live")
	waiting, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	check(t, lab.Until(waiting, "the addresses to be freed", func(ctx context.Context) error {
		all, err := h.reserved(ctx)
		if err == nil && len(all) > len(living) {
			err = fmt.Errorf("%d are reserved, for %d living containers: %v", len(all), len(living), all)
		}
		return err
	}))
	step("200 addresses are freed")

	if n := h.portRules(t); n != 0 {
		t.Errorf("%d rules map ports to addresses that are freed", n)
	}

	// One more that vanishes shows that two more sweeps, a grace period
	// apart, left the living alone.
	h.attach(t, dcos, []string{"canary"})
	h.vanish(t, []string{"canary"})
	check(t, h.companion.WaitLog(waiting, "container=canary"))
	step("one more is freed")
	want := map[netip.Addr]string{}
	for _, c := range living {
		owner := c.ID
		if strings.HasPrefix(owner, "bridge") {
			owner = "" // cnitool makes one up
		}
		want[c.IP4] = owner
	}
	all := must[map[netip.Addr]string](t)(h.reserved(ctx))
	for addr, owner := range all {
		if strings.HasPrefix(owner, "cnitool-") {
			all[addr] = ""
		}
	}
	if len(want) != 50 || !maps.Equal(all, want) {
		t.Errorf("reserved are %v, for the living %v", all, want)
	}
	if n := strings.Count(h.companion.Log(), "freed the address of a container"); n != 201 {
		t.Errorf("%d addresses were freed, of 201 that leaked", n)
	}
	for id, c := range living {
		if strings.HasPrefix(id, "bridge") || strings.HasPrefix(id, "hidden") {
			continue // no route leads to that bridge
		}
		if strings.HasPrefix(id, "stopped") {
			check(t, h.signal(ctx, c, "CONT"))
		}
		if _, err := h.Dial(ctx, netip.AddrPortFrom(c.IP4, scene.Port)); err != nil {
			t.Errorf("%s lives, and does not answer: %v", id, err)
		}
	}

	each(t, slices.Collect(maps.Keys(living)), func(ctx context.Context, id string) error {
		task := lab.MesosTask{ID: id, Conf: []byte(dcos)}
		switch kind, _, _ := strings.Cut(id, "-"); kind {
		case "unmounted":
		case "hidden":
			task.Conf = []byte(plainCNI)
		default:
			return living[id].Delete(ctx)
		}
		r, err := h.MesosDel(ctx, task)
		if err == nil && r.Code != 0 {
			err = errors.New(r.Stdout)
		}
		return err
	})
	left := must[string](t)(h.Run(ctx, "sh", "-ec", `cd "$0"; find . -type f ! -name lock ! -name 'last_reserved_ip.*'`, leakStore))
	if left != "" {
		t.Errorf("after the last DEL the store still has\n%s", left)
	}
}

// live starts 50 containers, by their ids.
func (h *leakHost) live(t *testing.T) map[string]*lab.Container {
	t.Helper()
	change := map[string]func(context.Context, *lab.Container) error{
		"plain":   func(context.Context, *lab.Container) error { return nil },
		"stopped": func(ctx context.Context, c *lab.Container) error { return h.signal(ctx, c, "STOP") },
		"renamed": func(ctx context.Context, c *lab.Container) error {
			_, err := c.Run(ctx, "sh", "-ec", `ip link set eth0 down; ip link set eth0 name mine; ip link set mine up`)
			return err
		},
		"unmounted": func(ctx context.Context, c *lab.Container) error {
			_, err := h.Run(ctx, "umount", c.Netns)
			return err
		},
	}
	var tasks []string
	for kind := range change {
		tasks = append(tasks, ids(kind, 10)...)
	}
	started := make([]*lab.Container, len(tasks))
	each(t, tasks, func(ctx context.Context, id string) error {
		c, err := h.MesosContainer(ctx, lab.MesosTask{ID: id, Conf: scene.CNI("dcos")})
		if err != nil {
			return err
		}
		started[slices.Index(tasks, id)] = c
		kind, _, _ := strings.Cut(id, "-")
		// After an unmount there is no way in.
		if _, err := c.Serve(ctx, scene.Port); err != nil {
			return err
		}
		return change[kind](ctx, c)
	})
	living := map[string]*lab.Container{}
	for i, id := range tasks {
		living[id] = started[i]
	}
	for _, id := range ids("bridge", 5) {
		living[id] = must[*lab.Container](t)(h.CNIToolContainer(t.Context(), id, []byte(plainCNI)))
	}
	// Neither a veth of ours nor a handle shows that these live.
	hidden := ids("hidden", 5)
	h.attach(t, plainCNI, hidden)
	for _, id := range hidden {
		must[*lab.Process](t)(h.Start(t.Context(), id, "nsenter", "--net=/run/netns/"+id, "probe", "pause"))
		living[id] = &lab.Container{ID: id}
	}
	for addr, owner := range must[map[netip.Addr]string](t)(h.reserved(t.Context())) {
		if slices.Contains(hidden, owner) {
			living[owner].IP4 = addr
		}
	}
	check(t, h.awaitInside(t.Context(), hidden))
	h.vanish(t, hidden)
	return living
}

// awaitInside waits until each of the namespaces has a process.
func (h *leakHost) awaitInside(ctx context.Context, ids []string) error {
	return lab.Until(ctx, "processes in namespaces", func(ctx context.Context) error {
		_, err := h.Run(ctx, append([]string{"sh", "-ec", `for n; do [ -n "$(ip netns pids "$n")" ]; done`, "sh"}, ids...)...)
		return err
	})
}
