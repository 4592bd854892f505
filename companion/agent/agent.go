// Package agent keeps one host as the overlays want it: again and again it
// compares what the lease, the coordinator and the configuration ask for with
// what the kernel and Docker have, and changes what differs.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/dcos/dcos-overlay/companion/docker"
	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// passTimeout bounds one comparison with all its repairs.
	passTimeout = time.Minute
	// callTimeout bounds one call of the coordinator.
	callTimeout = 10 * time.Second
	// quiet is the least pause between two passes, so that a burst of
	// events costs one pass.
	quiet = 100 * time.Millisecond
	// peersEvery is how often at most the known peers are written to disk.
	peersEvery = 10 * time.Second
)

// Docker is what is needed of the Docker Engine; *docker.Engine has it.
type Docker interface {
	Ensure(ctx context.Context, n docker.Network) (repairs []string, err error)
	Usage(ctx context.Context, n docker.Network) (used, free int64, err error)
}

// Agent is one host's companion.
type Agent struct {
	Host     *host.Host
	Follower *peers.Follower
	Docker   Docker
	// Interval is the time between two passes when nothing happens, and
	// between two heartbeats.
	Interval time.Duration
	Log      *slog.Logger

	mu sync.Mutex
	// held is the lease as of the last pass, states with what it found.
	held   *agentstate.Held
	states map[string]lease.State
	last   Pass
	passes int64

	// Only the loop's goroutine uses these.
	client     *apiclient.Client
	clientIP   netip.Addr
	claimed    bool
	reported   []api.OverlayStatus
	reportedAt time.Time
	savedAt    time.Time
	savedRev   int64
}

// Pass tells of the last comparison.
type Pass struct {
	At      time.Time
	Err     error
	Repairs int64
	Peers   int
	// Revision is the coordinator's that the host is at.
	Revision  int64
	Connected bool
}

// Run works until ctx ends. Docker's events and the coordinator's wake it.
func (a *Agent) Run(ctx context.Context, events <-chan struct{}) {
	tick := time.NewTicker(a.Interval)
	defer tick.Stop()
	for {
		a.pass(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(quiet):
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-events:
		case <-a.Follower.Changed():
		}
	}
}

// Entry is this agent's entry in the state, by its own word; false before the
// first lease.
func (a *Agent) Entry() (masterstate.Agent, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held == nil {
		return masterstate.Agent{}, false
	}
	self := a.held.Agent.Clone()
	for i := range self.Overlays {
		if s, ok := a.states[self.Overlays[i].Name]; ok {
			self.Overlays[i].State = s
		}
	}
	return masterstate.Entry(self, &a.held.Network), true
}

// Last tells of the last pass, and how many there were.
func (a *Agent) Last() (Pass, int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, a.passes
}

func (a *Agent) pass(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, passTimeout, fmt.Errorf("not done within %s", passTimeout))
	defer cancel()
	view := a.Follower.View()
	held, done, err := a.programmed(ctx, &view)
	if held != nil {
		a.publish(held, nil)
		states := a.overlays(ctx, held, err, &done)
		a.publish(held, states)
		a.report(ctx, held, states)
	}
	confErr := a.writeConfs(&view, held)
	if confErr != nil {
		a.Log.Error("a CNI configuration is not written", "error", confErr)
	}
	a.finish(&view, done.Repairs, errors.Join(err, confErr))
}

// programmed sees to the lease and to the kernel, with the host's lock held.
func (a *Agent) programmed(ctx context.Context, view *peers.View) (*agentstate.Held, host.Outcome, error) {
	unlock, err := a.Host.Dir.Lock(ctx)
	if err != nil {
		return a.known(), host.Outcome{}, err
	}
	defer unlock()
	held, err := a.lease(ctx, view)
	if held == nil {
		return nil, host.Outcome{}, err
	}
	if err != nil {
		a.Log.Warn("the lease is not brought up to date; the one on disk holds", "error", err)
	}
	known := host.Knowledge{Agents: view.Agents, Complete: view.Synced}
	if !view.Synced {
		if known.Agents, err = a.Host.Dir.Peers(); err != nil {
			a.Log.Warn("the peers known before can't be read", "error", err)
		}
	}
	done, err := a.Host.Program(ctx, held, known)
	if view.Synced && a.savedRev != view.Revision && time.Since(a.savedAt) > peersEvery {
		if saveErr := a.Host.Dir.SavePeers(view.Agents); saveErr != nil {
			a.Log.Warn("the peers are not kept for a start without coordinator", "error", saveErr)
		}
		a.savedRev, a.savedAt = view.Revision, time.Now()
	}
	return held, done, err
}

func (a *Agent) known() *agentstate.Held {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

// wantsAll tells whether this host takes a subnet of every overlay without
// being asked by a container: for Docker networks, and as DC/OS's masters do.
func (a *Agent) wantsAll() bool {
	c := a.Host.Conf.Network
	return c.AllocateSubnet && (c.DockerBridge || !c.MesosBridge)
}

// lease answers what this host holds: what is on disk, brought up to the
// coordinator's word, and claimed where something is wanted and missing. It may
// answer a lease and an error: then the one on disk holds. Nothing held and
// nothing wanted is nil without error.
func (a *Agent) lease(ctx context.Context, view *peers.View) (*agentstate.Held, error) {
	held, err := a.Host.Dir.Held()
	if err != nil {
		a.Log.Warn("the lease on disk is of no use and claimed anew", "error", err)
		held = nil
	}
	ip, err := a.Host.Conf.AgentIP()
	if err != nil {
		return held, err
	}
	var wanted []string
	if held != nil {
		for _, o := range held.Agent.Overlays {
			wanted = append(wanted, o.Name)
		}
	}
	if !a.wantsAll() && len(wanted) == 0 {
		return held, nil
	}
	if held != nil && held.Agent.IP == ip && a.claimed && !a.missing(held, view) {
		return a.refreshed(held, view)
	}
	client, err := a.connect(ip)
	if err != nil {
		return held, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	fresh, err := a.Host.Claim(ctx, client, ip, wanted, a.wantsAll())
	if apiclient.IsCode(err, api.CodeNotFound) {
		// An overlay that we hold was deleted: the rest is still ours.
		fresh, err = a.Host.Claim(ctx, client, ip, nil, a.wantsAll())
	}
	if err != nil {
		return held, fmt.Errorf("claim for agent %s: %w", ip, err)
	}
	if held == nil || !reflect.DeepEqual(withoutStates(held.Agent), withoutStates(fresh.Agent)) {
		a.Log.Info("lease", "agent", ip, "vtep", fresh.Agent.VTEP.IP, "overlays", len(fresh.Agent.Overlays), "revision", fresh.Revision)
	}
	a.claimed = true
	return fresh, nil
}

// missing tells whether the coordinator's word gives a reason to claim again.
func (a *Agent) missing(held *agentstate.Held, view *peers.View) bool {
	if !view.Connected || view.Revision < held.Revision {
		return false
	}
	self, ok := view.Agent(held.Agent.IP)
	if !ok || self.ID != held.Agent.ID {
		return true
	}
	if !a.wantsAll() {
		return false
	}
	return slices.ContainsFunc(view.Network.Overlays, func(o network.Overlay) bool {
		family := o.Subnet.IsValid() || a.Host.Conf.Network.EnableIPv6
		return o.IsEnabled() && family && self.Overlay(o.Name) == nil
	})
}

// refreshed is held as the stream knows it, when that is newer.
func (a *Agent) refreshed(held *agentstate.Held, view *peers.View) (*agentstate.Held, error) {
	self, ok := view.Agent(held.Agent.IP)
	if !ok || !view.Connected || view.Revision <= held.Revision {
		return held, nil
	}
	fresh := &agentstate.Held{Agent: self, Network: view.Network, Revision: view.Revision}
	if reflect.DeepEqual(withoutStates(fresh.Agent), withoutStates(held.Agent)) && reflect.DeepEqual(fresh.Network, held.Network) {
		return held, nil
	}
	if err := a.Host.Dir.Save(fresh); err != nil {
		return held, err
	}
	return fresh, nil
}

// withoutStates leaves of an agent's record what was granted to it.
func withoutStates(a lease.Agent) lease.Agent {
	c := a.Clone()
	for i := range c.Overlays {
		c.Overlays[i].State = lease.State{}
	}
	return *c
}

func (a *Agent) connect(ip netip.Addr) (*apiclient.Client, error) {
	if a.client != nil && a.clientIP == ip {
		return a.client, nil
	}
	client, err := a.Host.Client(ip)
	if err != nil {
		return nil, err
	}
	if a.client != nil {
		a.client.Close()
	}
	a.client, a.clientIP = client, ip
	return client, nil
}

// overlays makes the Docker networks and says how each overlay is.
func (a *Agent) overlays(ctx context.Context, held *agentstate.Held, failure error, done *host.Outcome) []api.OverlayStatus {
	var out []api.OverlayStatus
	for _, o := range held.Agent.Overlays {
		s := api.OverlayStatus{Name: o.Name, State: lease.State{Status: lease.StatusOK}}
		err := errors.Join(failure, done.Failed[o.Name])
		if held.Agent.Config.DockerBridge {
			dockerErr := a.docker(ctx, o, &s, done)
			err = errors.Join(err, dockerErr)
		}
		if pool, ok := a.Host.Pool(held, o.Name); ok && held.Agent.Config.MesosBridge {
			used, free, usageErr := pool.Usage(ctx)
			err = errors.Join(err, usageErr)
			s.Addresses.Mesos = &api.Usage{Used: used, Free: free}
		}
		if err != nil {
			s.State = lease.State{Status: lease.StatusFailed, Error: oneLine(err)}
		}
		out = append(out, s)
	}
	return out
}

func (a *Agent) docker(ctx context.Context, o lease.Overlay, s *api.OverlayStatus, done *host.Outcome) error {
	v4, v6 := o.DockerSide()
	// Without an MTU the host itself is wrong, and that is said already.
	if !v4.IsValid() && !v6.IsValid() || done.MTU == 0 {
		return nil
	}
	n := docker.Network{Name: o.Name, Bridge: network.DockerBridgeName(o.Name), V4: v4, V6: v6, MTU: done.MTU}
	if err := done.Note(host.KindDocker)(a.Docker.Ensure(ctx, n)); err != nil {
		return err
	}
	used, free, err := a.Docker.Usage(ctx, n)
	if err != nil {
		return err
	}
	s.Addresses.Docker = &api.Usage{Used: used, Free: free}
	return nil
}

// publish makes the lease and the states visible to Entry; states nil leaves
// those of before.
func (a *Agent) publish(held *agentstate.Held, states []api.OverlayStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = held
	if states == nil {
		return
	}
	was := a.states
	a.states = map[string]lease.State{}
	for _, s := range states {
		a.states[s.Name] = s.State
		if old, ok := was[s.Name]; !ok || old != s.State {
			if s.State.Status == lease.StatusOK {
				a.Log.Info("overlay is up", "overlay", s.Name)
			} else {
				a.Log.Error("overlay is not up", "overlay", s.Name, "error", s.State.Error)
			}
		}
	}
}

// report sends the states when they changed, and as a heartbeat.
func (a *Agent) report(ctx context.Context, held *agentstate.Held, states []api.OverlayStatus) {
	// Ticks drift; a heartbeat that is due within half an interval goes now.
	if reflect.DeepEqual(states, a.reported) && time.Since(a.reportedAt) < a.Interval/2 {
		return
	}
	client, err := a.connect(held.Agent.IP)
	if err != nil {
		a.Log.Warn("the state of this host is not reported", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = client.Report(ctx, held.Agent.IP, api.StatusRequest{ID: held.Agent.ID, Overlays: states})
	if err != nil {
		a.reported = nil
		if apiclient.IsCode(err, api.CodeNotFound) {
			// The record is gone: the next pass claims again.
			a.claimed = false
		}
		a.Log.Warn("the state of this host is not reported", "error", err)
		return
	}
	a.reported, a.reportedAt = states, time.Now()
}

// writeConfs writes a CNI configuration for every overlay that is enabled.
func (a *Agent) writeConfs(view *peers.View, held *agentstate.Held) error {
	dir := a.Host.Conf.CNIDir
	if dir == "" || !a.Host.Conf.Network.MesosBridge {
		return nil
	}
	overlays := view.Network.Overlays
	if !view.Synced && held != nil {
		overlays = held.Network.Overlays
	}
	var errs []error
	for _, o := range overlays {
		if o.IsEnabled() {
			errs = append(errs, a.writeConf(filepath.Join(dir, o.Name+".conf"), o.Name))
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) writeConf(path, overlay string) error {
	conf := map[string]any{
		"cniVersion": cniconf.DefaultVersion,
		"name":       overlay,
		"type":       "dcos-overlay",
		"ipam":       map[string]string{"type": cniconf.TypeIPAM},
	}
	if a.Host.Conf.Path != "" {
		conf["agentConfig"] = a.Host.Conf.Path
	}
	want, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return err
	}
	want = append(want, '\n')
	if have, err := os.ReadFile(path); err == nil && string(have) == string(want) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make cni_dir: %w", err)
	}
	if err := renameio.WriteFile(path, want, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	a.Log.Info("wrote CNI configuration", "file", path)
	return nil
}

func (a *Agent) finish(view *peers.View, repairs []host.Repair, err error) {
	for _, r := range repairs {
		a.Log.Info("repaired", "what", r.What, "kind", r.Kind)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && (a.last.Err == nil || a.last.Err.Error() != err.Error()) {
		a.Log.Error("this host is not as it should be", "error", err)
	}
	if err == nil && a.last.Err != nil {
		a.Log.Info("this host is as it should be again")
	}
	a.passes++
	a.last = Pass{
		At: time.Now(), Err: err, Repairs: a.last.Repairs + int64(len(repairs)),
		Peers: max(len(view.Agents)-1, 0), Revision: view.Revision, Connected: view.Connected,
	}
}

// oneLine is err's text as a state's reason; errors.Join makes several lines.
func oneLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
