// Package peers is what this host knows of the other agents and of the
// network's configuration, by following the coordinator's stream.
package peers

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// retryMin and retryMax bound the pause before the stream is opened
	// again; it doubles from one to the other while nothing answers.
	retryMin = 200 * time.Millisecond
	retryMax = 10 * time.Second
)

// Stream is the coordinator's; *apiclient.Client has it.
type Stream interface {
	Watch(ctx context.Context, since int64, epoch string, handle func(api.Event) error) error
}

// View is all that is known at one revision. Its maps and slices are the
// reader's own.
type View struct {
	// Synced says that this is the whole of it: some snapshot was completed
	// since the start.
	Synced bool
	// Connected says that the stream is open now and has caught up.
	Connected bool
	Revision  int64
	Network   network.Network
	// Deleting are overlays of Network that are being deleted, Deleted are
	// those that were, by an operator's will.
	Deleting, Deleted []string
	Agents            []lease.Agent
}

// Agent returns the record of the agent at ip, if it is known.
func (v *View) Agent(ip netip.Addr) (lease.Agent, bool) {
	i := slices.IndexFunc(v.Agents, func(a lease.Agent) bool { return a.IP == ip })
	if i < 0 {
		return lease.Agent{}, false
	}
	return v.Agents[i], true
}

// Follower keeps a View up to date.
type Follower struct {
	log     *slog.Logger
	changed chan struct{}

	mu        sync.Mutex
	synced    bool
	connected bool
	revision  int64
	// resume is the revision up to which every event was seen: several may
	// have one revision, and the stream may break between them.
	resume int64
	// epoch names the store that resume is a revision of.
	epoch  string
	config config
	agents map[netip.Addr]lease.Agent
	// next is the snapshot that is being read; nil when none is.
	next *snapshot
}

type snapshot struct {
	config config
	agents map[netip.Addr]lease.Agent
}

// config is what one event tells of the configuration.
type config struct {
	network           network.Network
	deleting, deleted []string
}

// New knows nothing yet.
func New(log *slog.Logger) *Follower {
	return &Follower{log: log, changed: make(chan struct{}, 1), agents: map[netip.Addr]lease.Agent{}}
}

// Changed yields when View has something new. Signals run together.
func (f *Follower) Changed() <-chan struct{} { return f.changed }

// View returns what is known now.
func (f *Follower) View() View {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := View{Synced: f.synced, Connected: f.connected, Revision: f.revision, Network: f.config.network}
	v.Network.Overlays = slices.Clone(f.config.network.Overlays)
	v.Deleting, v.Deleted = slices.Clone(f.config.deleting), slices.Clone(f.config.deleted)
	v.Agents = slices.SortedFunc(maps.Values(f.agents), func(a, b lease.Agent) int { return a.IP.Compare(b.IP) })
	return v
}

// Fixed says which agent has which fixed address. It costs less than View.
func (f *Follower) Fixed() map[netip.Addr]netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[netip.Addr]netip.Addr{}
	for ip, a := range f.agents {
		for _, o := range a.Overlays {
			for _, fixed := range o.Addresses {
				out[fixed.IP] = ip
			}
		}
	}
	return out
}

// Run follows the stream that open gives until ctx ends. open is called for
// each attempt, for this host's address may have changed.
func (f *Follower) Run(ctx context.Context, open func() (Stream, error)) {
	pause := retryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := f.follow(ctx, open)
		f.disconnect()
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > retryMax {
			pause = retryMin
		}
		f.log.Warn("the coordinator's stream is away; what is set up stays", "error", err, "retry", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

func (f *Follower) follow(ctx context.Context, open func() (Stream, error)) error {
	stream, err := open()
	if err != nil {
		return err
	}
	f.mu.Lock()
	since, epoch := f.resume, f.epoch
	if !f.synced {
		since = 0
	}
	f.mu.Unlock()
	return stream.Watch(ctx, since, epoch, f.apply)
}

func (f *Follower) disconnect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connected, f.next = false, nil
}

// apply takes one event. A snapshot takes effect when it is complete: until
// then what was known stays, so that nothing is removed on half a picture.
func (f *Follower) apply(e api.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e.Type {
	case api.EventSnapshot:
		f.next = &snapshot{agents: map[netip.Addr]lease.Agent{}}
		return nil
	case api.EventNetwork:
		if e.Network == nil {
			return fmt.Errorf("event %s of revision %d carries none", e.Type, e.Revision)
		}
		told := config{*e.Network, e.Deleting, e.Deleted}
		if f.next != nil {
			f.next.config = told
			return nil
		}
		f.config = told
	case api.EventSet:
		if e.Agent == nil {
			return fmt.Errorf("event %s of revision %d carries no agent", e.Type, e.Revision)
		}
		if f.next != nil {
			f.next.agents[e.Agent.IP] = *e.Agent
			return nil
		}
		f.agents[e.Agent.IP] = *e.Agent
	case api.EventDelete:
		if f.next != nil {
			delete(f.next.agents, e.IP)
			return nil
		}
		delete(f.agents, e.IP)
	case api.EventSynced:
		if f.next != nil {
			f.config, f.agents, f.next = f.next.config, f.next.agents, nil
		}
		f.synced, f.connected = true, true
	case api.EventPing:
		// Changes that are of no interest to agents have revisions, too: with
		// an answer of that revision at hand, this picture is not an old one.
		if f.next == nil && f.connected {
			f.revision = max(f.revision, e.Revision)
			f.resume = max(f.resume, e.Revision)
		}
		return nil
	default:
		// What a later coordinator says beside.
		return nil
	}
	f.revision = max(f.revision, e.Revision)
	f.resume = max(f.resume, e.Revision-1)
	if e.Type == api.EventSynced {
		// After a snapshot of another cluster's etcd revisions start anew.
		f.revision, f.resume, f.epoch = e.Revision, e.Revision, e.Epoch
	}
	if f.connected {
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
	return nil
}
