// Package agent keeps one host as the overlays want it: again and again it
// compares what the lease, the coordinator and the configuration ask for with
// what the kernel and Docker have, and changes what differs.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/companion/routes"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

const (
	// passTimeout bounds one comparison with all its repairs.
	passTimeout = time.Minute
	// peersEvery is how often at most the known peers are written to disk.
	peersEvery = 10 * time.Second
)

// Docker is what is needed of the Docker Engine; *docker.Engine has it.
type Docker interface {
	Ensure(ctx context.Context, n docker.Network) (repairs []string, err error)
	Usage(ctx context.Context, n docker.Network) (used, free int64, err error)
	List(ctx context.Context) (overlays []string, err error)
	Remove(ctx context.Context, overlay string) error
	Cut(ctx context.Context, overlay string) error
}

// Watch hears of changes in the kernel; *watch.Watch has it.
type Watch interface {
	Changed() <-chan string
	SetUnderlay(index int, ip netip.Addr)
}

// Agent is one host's companion.
type Agent struct {
	Host     *host.Host
	Follower *peers.Follower
	Docker   Docker
	// Events yields when Docker changes; nil where it is of no interest.
	Events <-chan struct{}
	Watch  Watch
	// Interval is the time between two passes when nothing happens, and
	// between two heartbeats.
	Interval time.Duration
	// ExtraHold is how long a subnet beside an overlay's first one must have
	// been empty before it is given back.
	ExtraHold time.Duration
	Log       *slog.Logger
	// Alive is called after every pass and every look at the rules.
	Alive func()

	mu sync.Mutex
	// held is the lease as of the last pass, the rest what it found.
	held     *agentstate.Held
	overlays []api.OverlayStatus
	status   Status

	// Only the loop's goroutine uses these.
	clients  clients
	reporter *reporter
	said     said
	rules    firewall.Config
	filtered int // addresses in the set that rules' filter goes by
	claim    claim
	savedAt  time.Time
	savedRev int64
	// release gives back what is held of one overlay: giveBack, but in tests.
	release func(ctx context.Context, held *agentstate.Held, overlay string) error
	// empty is since when overlays that are being deleted are seen without
	// containers.
	empty map[string]time.Time
	// moved is which agent has which fixed address, as of the last pass or what
	// came after it.
	moved map[netip.Addr]netip.Addr
	// unused is since when further subnets are seen without containers.
	unused map[extra]time.Time
	// routes are the host's own as of routesAt, manyRoutes that there are more.
	routes     []routes.Route
	manyRoutes bool
	routesAt   time.Time
}

// Status is how the host is.
type Status struct {
	// Passes is the number of comparisons since the start.
	Passes int64
	// Last is the latest of them.
	Last Pass
	// Repairs are counted by their kind.
	Repairs map[host.Kind]int64
	// Overlays are the states and the use of addresses.
	Overlays []api.OverlayStatus
	// SyncedAt is when the coordinator's stream was last seen open and caught
	// up; zero when it never was.
	SyncedAt time.Time
	// WantsDocker says that this host has Docker networks, DockerUp that the
	// Engine answers.
	WantsDocker, DockerUp bool
	// Warnings may be trouble on this host, and are no error.
	Warnings []string
	// Draining says of overlays that are being deleted what they wait for.
	Draining []string
	// Crowded are the address families whose neighbour table may be too small
	// for the peers.
	Crowded []string
}

// Pass tells of one comparison.
type Pass struct {
	At   time.Time
	Took time.Duration
	// Err is what is wrong with the host as a whole, Overlays what is wrong
	// with single overlays.
	Err, Overlays error
	// Repairs is how many there were.
	Repairs int
	Peers   int
	// Revision is the coordinator's that the host is at.
	Revision  int64
	Connected bool
}

// Trouble is all that the pass left wrong, or nil.
func (p Pass) Trouble() error { return errors.Join(p.Err, p.Overlays) }

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
		for _, s := range a.overlays {
			if s.Name == self.Overlays[i].Name {
				self.Overlays[i].State = s.State
			}
		}
	}
	return masterstate.Entry(self, &a.held.Network), true
}

// Status returns what is known now.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.Overlays = a.overlays // made anew by each pass
	s.Repairs = map[host.Kind]int64{}
	for _, k := range host.Kinds() {
		s.Repairs[k] = a.status.Repairs[k]
	}
	return s
}

// pass is one comparison of all with all.
func (a *Agent) pass(ctx context.Context) Pass {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, passTimeout, fmt.Errorf("not done within %s", passTimeout))
	defer cancel()
	a.moved = a.Follower.Fixed()
	view := a.Follower.View()
	held, done, err := a.programmed(ctx, &view)
	var overlaysErr error
	if held != nil {
		a.publish(held, nil)
		var states []api.OverlayStatus
		states, overlaysErr = a.eachOverlay(ctx, held, err, &done)
		a.publish(held, states)
		a.reporter.tell(held.Agent.IP, a.claim.answers, api.StatusRequest{
			ID: held.Agent.ID, Overlays: states, HostRoutes: a.hostRoutes(&view, held, &done),
		})
		a.Watch.SetUnderlay(done.Underlay.Index, held.Agent.IP)
		overlaysErr = errors.Join(overlaysErr, a.drain(ctx, &view, held, &done), a.retireDocker(ctx, &view, held, &done))
	}
	confErr := done.Note(host.KindConf)(a.confs(&view, held))
	a.rules, a.filtered = done.Rules, done.Filtered
	last := Pass{
		At: time.Now(), Took: time.Since(began), Err: errors.Join(err, confErr), Overlays: overlaysErr,
		Repairs: len(done.Repairs), Peers: max(len(view.Agents)-1, 0),
		Revision: view.Revision, Connected: view.Connected,
	}
	a.finish(&view, last, &done)
	return last
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
	if text := errorText(err); a.said.news("lease", text) && err != nil {
		a.Log.Warn("the lease is not brought up to date; the one on disk holds", "error", err)
	}
	held, shrinkErr := a.shrink(ctx, view, held)
	if text := errorText(shrinkErr); a.said.news("empty subnets", text) && shrinkErr != nil {
		a.Log.Warn("an empty subnet stays ours", "error", shrinkErr)
	}
	known := host.Knowledge{Agents: view.Agents, Complete: view.Synced}
	if !view.Synced {
		if known.Agents, err = a.Host.Dir.Peers(); err != nil {
			a.Log.Warn("the peers known before can't be read", "error", err)
		}
	}
	done, err := a.Host.Program(ctx, held, known)
	held, fixedErr := a.fixed(ctx, held, &done)
	if text := errorText(fixedErr); a.said.news("fixed addresses", text) && fixedErr != nil {
		a.Log.Warn("the fixed addresses are not as the coordinator has them", "error", fixedErr)
	}
	if a.knowsAll(view, held) {
		err = errors.Join(err, a.retireDevices(view, held, &done))
	}
	if view.Synced && a.savedRev != view.Revision && time.Since(a.savedAt) > peersEvery {
		saveErr := a.Host.Dir.SavePeers(view.Agents)
		if text := errorText(saveErr); a.said.news("peers", text) && saveErr != nil {
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

// publish makes the lease and the states visible; states nil leaves those of
// before.
func (a *Agent) publish(held *agentstate.Held, states []api.OverlayStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = held
	if states == nil {
		return
	}
	was := map[string]lease.State{}
	for _, s := range a.overlays {
		was[s.Name] = s.State
	}
	a.overlays = states
	for _, s := range states {
		old, ok := was[s.Name]
		switch {
		case ok && old == s.State:
		case s.State.Status == lease.StatusOK:
			a.Log.Info("overlay is up", "overlay", s.Name)
		default:
			a.Log.Error("overlay is not up", "overlay", s.Name, "error", s.State.Error)
		}
	}
}

// finish logs what the pass did and found, and counts it.
func (a *Agent) finish(view *peers.View, last Pass, done *host.Outcome) {
	for _, r := range done.Repairs {
		a.Log.Info("repaired", "what", r.What, "kind", r.Kind)
	}
	crowded := a.crowded(last.Peers)
	a.mu.Lock()
	defer a.mu.Unlock()
	trouble, was := last.Trouble(), a.status.Last.Trouble()
	if trouble != nil && errorText(trouble) != errorText(was) {
		a.Log.Error("this host is not as it should be", "error", oneLine(trouble))
	}
	if trouble == nil && was != nil {
		a.Log.Info("this host is as it should be again")
	}
	if a.status.Repairs == nil {
		a.status.Repairs = map[host.Kind]int64{}
	}
	for _, r := range done.Repairs {
		a.status.Repairs[r.Kind]++
	}
	if view.Connected {
		a.status.SyncedAt = last.At
	}
	a.status.Passes++
	a.status.Last = last
	a.status.Crowded = crowded
	for _, w := range done.Warnings {
		if !slices.Contains(a.status.Warnings, w) {
			a.Log.Warn("this host may be in trouble", "what", w)
		}
	}
	a.status.Warnings = done.Warnings
}
