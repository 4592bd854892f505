package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/netnstest"
	"github.com/dcos/dcos-overlay/internal/network"
)

// TestMain fails when a goroutine is left.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an Agent on a host of its own: a network namespace, a lease, a
// coordinator's stream that the test speaks, an Engine that remembers.
type world struct {
	*testing.T
	*Agent
	engine *engine
	events chan api.Event
	// deleting and deleted are what the coordinator says of overlays; released
	// is what it is told.
	deleting, deleted, released []string
	rev                         int64
	self                        lease.Agent
	net                         network.Network
}

func newWorld(t *testing.T) *world {
	t.Helper()
	netnstest.Enter(t)
	netnstest.Run(t, "ip link add eth0 type veth peer name wire")
	netnstest.Run(t, "ip addr add 10.0.0.1/24 dev eth0")
	netnstest.Run(t, "ip link set eth0 up")
	netnstest.Run(t, "ip link set wire up")

	dir := t.TempDir()
	conf := agentconf.Config{
		Path: "/etc/dcos-overlay/agent.json", IP: netip.MustParseAddr("10.0.0.1"), Network: lease.DefaultNetworkConfig(),
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), CNIDir: filepath.Join(dir, "cni"),
		VTEPTxOffload: true,
	}
	log := slog.New(slog.DiscardHandler)
	w := &world{
		T: t, engine: &engine{t: t, networks: map[string]bool{}, busy: map[string]bool{}}, events: make(chan api.Event),
		self: lease.Agent{
			ID: "id", IP: conf.IP, Config: conf.Network,
			VTEP: lease.VTEP{IP: prefix("44.128.0.1/20"), IP6: prefix("fd01:a::1/64"), MAC: network.MAC{0x70, 0xb3, 0xd5, 0x80, 0, 1}},
			Overlays: []lease.Overlay{
				{Name: "dcos", Subnets: []netip.Prefix{prefix("9.0.0.0/24")}},
				{Name: "dcos6", Subnets6: []netip.Prefix{prefix("fd01:b::/80")}},
			},
		},
		net: network.Network{
			VTEPSubnet: prefix("44.128.0.0/20"), VTEPSubnet6: prefix("fd01:a::/64"),
			Overlays: []network.Overlay{
				{Name: "dcos", Subnet: prefix("9.0.0.0/8"), Prefix: 24},
				{Name: "dcos6", Subnet6: prefix("fd01:b::/64"), Prefix6: 80},
			},
		},
	}
	w.Agent = &Agent{
		Host: host.New(conf, log), Follower: peers.New(log), Docker: w.engine, Watch: deaf{},
		Interval: time.Minute, Log: log, Alive: func() {},
	}
	w.reporter = newReporter(w.Agent)
	w.release = func(_ context.Context, _ *agentstate.Held, overlay string) error {
		w.released = append(w.released, overlay)
		return nil
	}
	w.claim.done = true
	check(t, w.Host.Dir.Save(&agentstate.Held{Agent: w.self, Network: w.net, Revision: 1}))
	return w
}

// connect opens the coordinator's stream; disconnect ends it.
func (w *world) connect() (disconnect func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		w.Follower.Run(ctx, func() (peers.Stream, error) { return stream(w.events), nil })
	})
	w.tell()
	return func() {
		cancel()
		wg.Wait()
	}
}

// tell sends a whole snapshot of what the world's fields say now.
func (w *world) tell() {
	w.rev += 10
	self, net := w.self.Clone(), w.net
	net.Overlays = slices.Clone(net.Overlays)
	for _, e := range []api.Event{
		{Type: api.EventSnapshot}, {Type: api.EventNetwork, Network: &net, Deleting: w.deleting, Deleted: w.deleted},
		{Type: api.EventSet, Agent: self}, {Type: api.EventSynced},
	} {
		e.Revision = w.rev
		w.events <- e
	}
	<-w.Follower.Changed()
}

// stream hands on what the test sends.
type stream chan api.Event

func (s stream) Watch(ctx context.Context, _ int64, _ string, handle func(api.Event) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-s:
			if err := handle(e); err != nil {
				return err
			}
		}
	}
}

// deaf hears nothing.
type deaf struct{}

func (deaf) Changed() <-chan string      { return nil }
func (deaf) SetUnderlay(int, netip.Addr) {}

// engine is a Docker Engine of which only the networks are real: each has its
// bridge in the kernel.
type engine struct {
	t        *testing.T
	networks map[string]bool
	// busy are those with containers.
	busy map[string]bool
	down bool
}

func (e *engine) err() error {
	if e.down {
		return fmt.Errorf("%w: is it running?", docker.ErrUnavailable)
	}
	return nil
}

func (e *engine) Ensure(_ context.Context, n docker.Network) ([]string, error) {
	if e.networks[n.Name] || e.down {
		return nil, e.err()
	}
	e.networks[n.Name] = true
	if !exists(n.Bridge) {
		netnstest.Run(e.t, "ip link add "+n.Bridge+" type bridge")
	}
	return []string{"Docker network " + n.Name + " was missing"}, nil
}

func (e *engine) Usage(context.Context, docker.Network) (used, free int64, err error) {
	return 1, 2, e.err()
}

func (e *engine) List(context.Context) (overlays []string, err error) {
	for n := range e.networks {
		overlays = append(overlays, n)
	}
	slices.Sort(overlays)
	return overlays, e.err()
}

func (e *engine) Remove(_ context.Context, overlay string) error {
	switch {
	case e.down:
		return e.err()
	case e.busy[overlay]:
		return fmt.Errorf("Docker network %s is %w by a container", overlay, docker.ErrInUse)
	}
	return e.Cut(context.Background(), overlay)
}

func (e *engine) Cut(_ context.Context, overlay string) error {
	if e.down {
		return e.err()
	}
	delete(e.networks, overlay)
	if exists("d-" + overlay) {
		netnstest.Run(e.t, "ip link del d-"+overlay)
	}
	return nil
}

// ours says which of both overlays' things there are: m for the Mesos bridge,
// r for the mark, d for the Docker network, c for the CNI configuration.
func (w *world) ours() string {
	var out []string
	for _, o := range []string{"dcos", "dcos6"} {
		s := o + ":"
		_, confErr := os.Stat(filepath.Join(w.Host.Conf.CNIDir, o+".conf"))
		for _, x := range []struct {
			there bool
			sign  string
		}{{exists("m-" + o), "m"}, {w.Host.Dir.Ready(o), "r"}, {w.engine.networks[o], "d"}, {confErr == nil, "c"}} {
			if x.there {
				s += x.sign
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// passes makes a pass and wants no trouble, and ours afterwards.
func (w *world) passes(why, ours string) {
	w.Helper()
	if last := w.pass(w.Context()); last.Trouble() != nil {
		w.Errorf("%s: %v", why, last.Trouble())
	}
	if got := w.ours(); got != ours {
		w.Errorf("%s: there is %q, want %q", why, got, ours)
	}
}

func TestPass(t *testing.T) {
	w := newWorld(t)
	w.passes("a pass without coordinator", "dcos:mrdc dcos6:mrdc")
	w.passes("another", "dcos:mrdc dcos6:mrdc")
	s := w.Status()
	if s.Passes != 2 || s.Last.Repairs != 0 || s.Repairs[host.KindDocker] != 2 || s.Repairs[host.KindConf] != 2 ||
		s.Repairs[host.KindSysctl] == 0 || s.Repairs[host.KindRules] == 0 || s.Repairs[host.KindDevice] == 0 {
		t.Errorf("the status is %+v", s)
	}
	if !s.WantsDocker || !s.DockerUp || !s.SyncedAt.IsZero() || s.Last.Connected {
		t.Errorf("the status is %+v", s)
	}
	if len(s.Overlays) != 2 || s.Overlays[0].State.Status != lease.StatusOK ||
		*s.Overlays[0].Addresses.Docker != (api.Usage{Used: 1, Free: 2}) || s.Overlays[0].Addresses.Mesos == nil {
		t.Errorf("the overlays are %+v", s.Overlays)
	}
	if entry, ok := w.Entry(); !ok || len(entry.Overlays) != 2 || entry.Overlays[1].State.Status != lease.StatusOK {
		t.Errorf("the entry is %+v", entry)
	}
}

func TestRetire(t *testing.T) {
	w := newWorld(t)
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	w.self.Overlays, w.net.Overlays = w.self.Overlays[:1], w.net.Overlays[:1]
	w.engine.busy["dcos6"] = true
	netnstest.Run(t, "ip link add dov1 type veth peer name inside")
	netnstest.Run(t, "ip link set dov1 master m-dcos6")
	w.passes("gone, but nobody has said so", "dcos:mrdc dcos6:mrdc")
	check(t, w.Host.Dir.Save(&agentstate.Held{Agent: w.self, Network: w.net, Revision: 1}))
	w.passes("gone by the lease on disk alone", "dcos:mrdc dcos6:mrdc")
	disconnect := w.connect()
	w.passes("gone and in use", "dcos:mrdc dcos6:mrd")
	disconnect()
	w.engine.busy["dcos6"] = false
	netnstest.Run(t, "ip link del dov1")
	w.passes("out of use, and the stream is away", "dcos:mrdc dcos6:mrd")
	disconnect = w.connect()
	defer disconnect()
	w.passes("out of use", "dcos:mrdc dcos6:")
	w.passes("after that", "dcos:mrdc dcos6:")
	if n := w.Status().Last.Repairs; n != 0 {
		t.Errorf("it still repairs %d things", n)
	}
	// Bridges and networks that no mark and no label tells of are others'.
	netnstest.Run(t, "ip link add m-other type bridge")
	w.passes("with another's bridge", "dcos:mrdc dcos6:")
	if !exists("m-other") {
		t.Error("another's bridge is gone")
	}
}

// TestUnconfirmedLease: what is on disk may be old, and a claim that the
// coordinator has not answered says nothing.
func TestUnconfirmedLease(t *testing.T) {
	w := newWorld(t)
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	w.claim = claim{next: time.Now().Add(time.Hour)}
	check(t, w.Host.Dir.Save(&agentstate.Held{Agent: lease.Agent{
		ID: "id", IP: w.self.IP, VTEP: w.self.VTEP, Config: w.self.Config, Overlays: w.self.Overlays[:1],
	}, Network: w.net, Revision: 1}))
	defer w.connect()()
	w.passes("with an old lease", "dcos:mrdc dcos6:mrdc")
}

func TestDisabledAndHeld(t *testing.T) {
	w := newWorld(t)
	defer w.connect()()
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	off := false
	w.net.Overlays[0].Enabled = &off
	w.tell()
	w.passes("disabled", "dcos:mrd dcos6:mrdc")
	if s := w.Status().Overlays[0].State; s.Status != lease.StatusOK {
		t.Errorf("the disabled overlay is %+v", s)
	}
}

// TestOneFailureLeavesTheRest: an overlay that can't be made keeps no other
// from being up, and no part of the host another.
func TestOneFailureLeavesTheRest(t *testing.T) {
	w := newWorld(t)
	netnstest.Run(t, "ip link add m-dcos type veth peer name peer1")
	last := w.pass(t.Context())
	if last.Err != nil || last.Overlays == nil || !strings.Contains(last.Overlays.Error(), "overlay dcos: make bridge m-dcos") {
		t.Errorf("the pass says %v and %v", last.Err, last.Overlays)
	}
	if got := w.ours(); got != "dcos:mdc dcos6:mrdc" {
		t.Errorf("there is %q", got)
	}
	states := w.Status().Overlays
	if states[0].State.Status != lease.StatusFailed || states[1].State.Status != lease.StatusOK {
		t.Errorf("the states are %+v", states)
	}
	netnstest.Run(t, "ip link del m-dcos")
	w.passes("put right", "dcos:mrdc dcos6:mrdc")

	w.engine.down = true
	if last := w.pass(t.Context()); last.Err != nil || !errors.Is(last.Overlays, docker.ErrUnavailable) {
		t.Errorf("without Docker the pass says %v and %v", last.Err, last.Overlays)
	}
	if w.Status().DockerUp {
		t.Error("Docker is taken for up")
	}
}

func TestNoVTEP(t *testing.T) {
	w := newWorld(t)
	netnstest.Run(t, "ip link add other type vxlan id 1024 dstport 64000 local 10.0.0.1")
	netnstest.Run(t, "ip link set other up")
	last := w.pass(t.Context())
	if last.Err == nil || !strings.Contains(last.Err.Error(), "UDP port 64000 is taken by the VXLAN device other") {
		t.Errorf("the pass says %v", last.Err)
	}
	// All but what needs the VTEP; the marks say that the host is set up.
	if got := w.ours(); got != "dcos:mdc dcos6:mdc" {
		t.Errorf("there is %q", got)
	}
	if rules := netnstest.Run(t, "iptables-save"); !strings.Contains(rules, "-A DCOS-OVERLAY-MASQ -s 9.0.0.0/8 -j MASQUERADE") {
		t.Errorf("the rules are\n%s", rules)
	}
	for _, s := range w.Status().Overlays {
		if s.State.Status != lease.StatusFailed || strings.Contains(s.State.Error, "\n") {
			t.Errorf("the state is %+v", s)
		}
	}
}

// TestDockerBridgeDeleted: Docker does not notice that, and would start no
// container any more.
func TestDockerBridgeDeleted(t *testing.T) {
	w := newWorld(t)
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	netnstest.Run(t, "ip link del d-dcos")
	w.passes("with d-dcos deleted", "dcos:mrdc dcos6:mrdc")
	if !exists("d-dcos") {
		t.Error("d-dcos is not back")
	}
	netnstest.Run(t, "ip link del d-dcos")
	w.engine.busy["dcos"] = true
	if last := w.pass(t.Context()); last.Overlays == nil || !strings.Contains(last.Overlays.Error(), "d-dcos was deleted") {
		t.Errorf("with a container on it the pass says %v", last.Overlays)
	}
}

func exists(device string) bool {
	_, err := net.InterfaceByName(device)
	return err == nil
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
