package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/netnstest"
	"github.com/dcos/dcos-overlay/internal/network"
)

// begin has the coordinator say that dcos is being deleted.
func (w *world) begin() {
	off := false
	w.net.Overlays = slices.Clone(w.net.Overlays)
	w.net.Overlays[0].Enabled = &off
	w.deleting = []string{"dcos"}
	w.tell()
}

// settle makes a pass after all that is empty has been so for long.
func (w *world) settle(why, ours string) {
	w.Helper()
	w.passes(why, ours)
	for o := range w.empty {
		w.empty[o] = time.Now().Add(-drainSettle)
	}
	w.passes(why+", settled", ours)
}

// waits wants the drain to wait for what says so, and nothing given back.
func (w *world) waits(want string) {
	w.Helper()
	s := w.Status()
	if len(s.Draining) != 1 || !strings.Contains(s.Draining[0], want) || len(w.released) != 0 {
		w.Errorf("it waits for %q, and has released %q; want it to wait for %q", s.Draining, w.released, want)
	}
}

func TestDrain(t *testing.T) {
	w := newWorld(t)
	defer w.connect()()
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	held, err := w.Host.Dir.Held()
	check(t, err)
	pool, ok := w.Host.Pool(held, "dcos")
	if !ok {
		t.Fatal("the lease grants no addresses")
	}
	owner := ipam.Owner{ContainerID: "c", IfName: "eth0"}
	_, err = pool.Reserve(t.Context(), owner, nil, nil)
	check(t, err)
	netnstest.Run(t, "ip link add dov1 type veth peer name inside")
	netnstest.Run(t, "ip link set dov1 master m-dcos")
	w.engine.busy["dcos"] = true

	w.begin()
	w.settle("deleted, with containers of both kinds", "dcos:mrd dcos6:mrdc")
	w.waits("1 addresses are reserved for Mesos containers and Docker network dcos is in use")
	if held, err := w.Host.Dir.Held(); err != nil || !held.Drains("dcos") || held.Drains("dcos6") {
		t.Errorf("the plugins are told %+v, %v", held, err)
	}
	w.engine.busy["dcos"] = false
	w.settle("without Docker's", "dcos:mr dcos6:mrdc")
	w.waits("1 addresses are reserved")
	check(t, pool.Release(t.Context(), owner))
	w.settle("with an interface", "dcos:mr dcos6:mrdc")
	w.waits("1 interfaces are on m-dcos")
	netnstest.Run(t, "ip link del dov1")
	w.passes("empty", "dcos:mr dcos6:mrdc")
	if len(w.released) != 0 || len(w.empty) != 1 {
		t.Errorf("at the first look %q are released", w.released)
	}
	w.settle("empty", "dcos:mr dcos6:mrdc")
	if fmt.Sprint(w.released) != "[dcos]" || len(w.Status().Draining) != 0 {
		t.Errorf("released is %q, draining %q", w.released, w.Status().Draining)
	}
	// The coordinator confirms it.
	w.self.Overlays, w.net.Overlays, w.deleting, w.deleted = w.self.Overlays[1:], w.net.Overlays[1:], nil, []string{"dcos"}
	w.tell()
	w.passes("given back", "dcos: dcos6:mrdc")
	w.passes("after that", "dcos: dcos6:mrdc")
	if s := w.Status(); s.Last.Repairs != 0 || w.draining() {
		t.Errorf("it still repairs %d things, and drains: %v", s.Last.Repairs, w.draining())
	}
}

// TestDrainEnds: a PUT brings back what was on its way out.
func TestDrainEnds(t *testing.T) {
	w := newWorld(t)
	defer w.connect()()
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	// A delete of what is disabled already changes nothing else.
	w.begin()
	w.deleting = nil
	w.tell()
	w.passes("disabled", "dcos:mrd dcos6:mrdc")
	w.begin()
	w.passes("deleted", "dcos:mr dcos6:mrdc")
	if !w.draining() {
		t.Error("it is not known to drain")
	}
	w.net.Overlays = []network.Overlay{{Name: "dcos", Subnet: prefix("9.0.0.0/8"), Prefix: 24}, w.net.Overlays[1]}
	w.deleting = nil
	w.tell()
	w.passes("brought back", "dcos:mrdc dcos6:mrdc")
	if len(w.released) != 0 || w.draining() || len(w.empty) != 0 {
		t.Errorf("%q are released, draining is %v", w.released, w.draining())
	}
}

// TestDrainNeedsTheCoordinator: what is given back on old knowledge may be
// needed.
func TestDrainNeedsTheCoordinator(t *testing.T) {
	w := newWorld(t)
	disconnect := w.connect()
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	w.begin()
	w.engine.busy["dcos"] = true
	w.passes("deleted", "dcos:mrd dcos6:mrdc")
	disconnect()
	w.engine.busy["dcos"] = false
	w.settle("with the stream away", "dcos:mrd dcos6:mrdc")
	if len(w.released) != 0 {
		t.Errorf("%q are released", w.released)
	}
	// Without Docker, what is on its bridge is not known.
	defer w.connect()()
	w.engine.down = true
	_ = w.pass(t.Context())
	w.waits("Docker Engine not reachable")
}

// TestTaken: what an operator took by force goes with its containers, and what
// only is not there does not.
func TestTaken(t *testing.T) {
	w := newWorld(t)
	defer w.connect()()
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	netnstest.Run(t, "ip link add dov1 type veth peer name inside")
	netnstest.Run(t, "ip link set dov1 master m-dcos")
	w.engine.busy["dcos"] = true
	w.self.Overlays, w.net.Overlays = w.self.Overlays[1:], w.net.Overlays[1:]
	w.tell()
	w.passes("lost", "dcos:mrd dcos6:mrdc")
	w.deleted = []string{"dcos"}
	w.tell()
	w.passes("taken", "dcos: dcos6:mrdc")
	if !exists("dov1") {
		t.Error("the container's link is gone: its DEL removes it")
	}
}
