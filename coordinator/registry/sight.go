package registry

import (
	"context"
	"net/netip"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Sight is all agents as they are known at one revision, with whether they are
// alive. It must not be changed.
type Sight struct {
	Epoch    string
	Revision int64
	Overlays []api.Overlay
	VTEPs    api.VTEPs
	Agents   []SeenAgent // by IP
}

// SeenAgent is one agent's record, and how it is.
type SeenAgent struct {
	*lease.Agent
	Alive bool
	// SilentSince is zero while it is alive, and before it is marked silent.
	SilentSince time.Time
	// report is the last one of an agent that is alive, as etcd has it.
	report string
}

// Addresses are the counts by overlay that the agent reported last.
func (s SeenAgent) Addresses() map[string]api.Addresses {
	return aliveEntry{value: s.report}.report().Addresses
}

// Same tells whether nothing is new of the agent since old.
func (s SeenAgent) Same(old SeenAgent) bool {
	return s.Agent == old.Agent && s.Alive == old.Alive && s.SilentSince.Equal(old.SilentSince) && s.report == old.report
}

// Revision is the latest that the index has seen.
func (r *Registry) Revision() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.idx.rev
}

// Network is the configuration that the index holds. It must not be changed.
func (r *Registry) Network() *network.Network {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.idx.net
}

// Sight returns what the index holds, once it has been loaded. It keeps nobody
// waiting, however many agents there are.
func (r *Registry) Sight(ctx context.Context) (Sight, error) {
	if err := r.loaded(ctx); err != nil {
		return Sight{}, err
	}
	r.mu.Lock()
	s := Sight{
		Epoch: r.idx.epoch(), Revision: r.idx.rev,
		Overlays: r.allDescribed(),
		VTEPs: api.VTEPs{
			Subnet: r.idx.net.VTEPSubnet, Addresses: r.usage(poolID{}),
			Subnet6: r.idx.net.VTEPSubnet6, Addresses6: r.usage(poolID{v6: true}),
		},
	}
	agents := r.idx.byIP.Clone()
	r.mu.Unlock()
	s.Agents = make([]SeenAgent, 0, agents.Len())
	for a := range ascend(agents, netip.Addr{}) {
		s.Agents = append(s.Agents, SeenAgent{Agent: a.Agent, Alive: a.alive, SilentSince: a.silentSince, report: a.report})
	}
	return s, nil
}

// allDescribed are the overlays, in the configured order; r.mu is held.
func (r *Registry) allDescribed() []api.Overlay {
	out := make([]api.Overlay, 0, len(r.idx.net.Overlays))
	for _, o := range r.idx.net.Overlays {
		out = append(out, r.described(o))
	}
	return out
}

// described is o with how far it is in its life, and how much of its space is
// used; r.mu is held.
func (r *Registry) described(o network.Overlay) api.Overlay {
	return api.Overlay{
		Overlay: o, Deleting: r.idx.overlays[o.Name].Deleting, Holders: r.idx.tally.holders[o.Name],
		Subnets: r.usage(poolID{overlay: o.Name}), Subnets6: r.usage(poolID{overlay: o.Name, v6: true}),
	}
}

// usage counts the pool called id; nil where nothing is configured. r.mu is
// held.
func (r *Registry) usage(id poolID) *api.Units {
	pool := r.idx.pools[id]
	if pool == nil || !pool.Shaped() {
		return nil
	}
	u := pool.Usage(r.opts.Now(), r.opts.Quarantine)
	return &api.Units{Leased: u.Leased, Resting: u.Resting, Free: u.Free}
}
