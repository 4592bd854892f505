package torture

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// reader is one reader of the stream of agents, as a companion is. What it
// knows survives its connections.
type reader struct {
	http *http.Client

	mu sync.Mutex
	// revision is that of the last event, epoch the last that one named.
	revision int64
	epoch    string
	agents   map[netip.Addr]lease.Agent
	network  *network.Network
	// counts are how often each event came.
	counts map[api.EventType]int
	// problems are what no reader may ever see.
	problems []string
}

// newReader makes a reader that calls from the clients' host.
func newReader(h *lab.Host) *reader {
	return &reader{
		http:   &http.Client{Transport: &http.Transport{DialContext: h.DialContext, DisableKeepAlives: true}},
		agents: map[netip.Addr]lease.Agent{},
		counts: map[api.EventType]int{},
	}
}

// open asks for the stream, from where the reader is.
func (r *reader) open(ctx context.Context, url string) (*http.Response, error) {
	url += api.PathAgents + "?watch=true"
	r.mu.Lock()
	if r.revision > 0 {
		url += "&since=" + strconv.FormatInt(r.revision, 10) + "&epoch=" + r.epoch
	}
	r.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("the stream answers %s", resp.Status), resp.Body.Close())
	}
	return resp, nil
}

// follow reads the stream of one coordinator until enough says so, which may
// be nil, or it breaks.
func (r *reader) follow(ctx context.Context, url string, enough func(api.Event) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := r.open(ctx, url)
	if err != nil {
		return err
	}
	return r.read(resp, enough)
}

// read takes in events until enough says so, or there are no more.
func (r *reader) read(resp *http.Response, enough func(api.Event) bool) error {
	defer resp.Body.Close()
	events := json.NewDecoder(resp.Body)
	for {
		var e api.Event
		if err := events.Decode(&e); err != nil {
			return err
		}
		r.take(e)
		if enough != nil && enough(e) {
			return nil
		}
	}
}

func (r *reader) take(e api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[e.Type]++
	r.revision = e.Revision
	r.epoch = cmp.Or(e.Epoch, r.epoch)
	switch e.Type {
	case api.EventSnapshot:
		clear(r.agents)
	case api.EventNetwork:
		r.network = e.Network
	case api.EventDelete:
		delete(r.agents, e.IP)
	case api.EventSet:
		r.agents[e.Agent.IP] = *e.Agent
		for _, u := range unitsOf(e.Agent) {
			for ip, other := range r.agents {
				for _, theirs := range unitsOf(&other) {
					if ip != e.Agent.IP && theirs == u {
						r.problems = append(r.problems, fmt.Sprintf("a reader saw %s at %s while it was at %s", u, e.Agent.IP, ip))
					}
				}
			}
		}
	}
}

// wander reads from one coordinator after the other until ctx ends, and does
// not stay long with any.
func (r *reader) wander(ctx context.Context, c *cluster, rng *rand.Rand) {
	for ctx.Err() == nil {
		stay, cancel := context.WithTimeout(ctx, 100*time.Millisecond+time.Duration(rng.IntN(3000))*time.Millisecond)
		// It ends with an error, always: the stream breaks or is left.
		_ = r.follow(stay, c.hosts[rng.IntN(nodes)].CoordinatorURL(), nil)
		cancel()
		pass(ctx, time.Duration(rng.IntN(50))*time.Millisecond)
	}
}

// state is what the reader knows.
func (r *reader) state() (map[netip.Addr]lease.Agent, *network.Network) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[netip.Addr]lease.Agent{}
	for ip, a := range r.agents {
		out[ip] = a
	}
	return out, r.network
}

func (r *reader) count(t api.EventType) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[t]
}

// catchUp reads from a coordinator until synced.
func (r *reader) catchUp(ctx context.Context, url string) error {
	return r.follow(ctx, url, func(e api.Event) bool { return e.Type == api.EventSynced })
}

// agrees compares what the reader knows with what one does that begins now,
// and with what each coordinator answers.
func (r *reader) agrees(ctx context.Context, c *cluster) error {
	agents, net := r.state()
	for i, h := range c.hosts {
		fresh := newReader(c.clients)
		if err := fresh.catchUp(ctx, h.CoordinatorURL()); err != nil {
			return err
		}
		freshAgents, freshNet := fresh.state()
		if err := same(agents, freshAgents); err != nil {
			return fmt.Errorf("the reader against a fresh one of coordinator %d: %w", i, err)
		}
		if !reflect.DeepEqual(net, freshNet) {
			return fmt.Errorf("the reader has the network %+v, a fresh one of coordinator %d has %+v", net, i, freshNet)
		}
		list, err := c.agentsAt(ctx, i)
		if err != nil {
			return err
		}
		listed := map[netip.Addr]lease.Agent{}
		for _, a := range list.Agents {
			listed[a.IP] = a
		}
		if err := same(agents, listed); err != nil {
			return fmt.Errorf("the reader against the list of coordinator %d: %w", i, err)
		}
	}
	return nil
}

func same(a, b map[netip.Addr]lease.Agent) error {
	for ip, mine := range a {
		if theirs, ok := b[ip]; !ok || !reflect.DeepEqual(mine, theirs) {
			return fmt.Errorf("agent %s is %+v here and %+v there", ip, mine, theirs)
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("there are %d agents here and %d there", len(a), len(b))
	}
	return nil
}
