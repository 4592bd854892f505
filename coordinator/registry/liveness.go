package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Alive tells whether the agent at ip has reported within Options.AliveTTL.
func (r *Registry) Alive(ip netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.idx.alive[ip]
	return ok
}

// How tells how the agent at ip is: of one without a record nothing.
func (r *Registry) How(ip netip.Addr) api.AgentStatus {
	r.mu.Lock()
	a, ok := r.idx.byIP.Get(pivot(ip))
	n := r.idx.net
	r.mu.Unlock()
	if !ok {
		return api.AgentStatus{}
	}
	return r.status(a, n)
}

// Liveness tells how each agent of v is. It keeps nobody waiting, however many
// there are.
func (r *Registry) Liveness(v View) map[netip.Addr]api.AgentStatus {
	out := make(map[netip.Addr]api.AgentStatus, v.agents.Len())
	for a := range ascend(v.agents, netip.Addr{}) {
		out[a.IP] = r.status(a, v.Network)
	}
	return out
}

// status is how a is, on that network.
func (r *Registry) status(a *standing, n *network.Network) api.AgentStatus {
	seen := r.lastSeen(a.IP)
	s := api.AgentStatus{Alive: a.alive, SilentSince: a.silentSince, GoneSince: a.mesos.Gone}
	if a.alive {
		report := aliveEntry{value: a.report}.report()
		s.Addresses, s.HostRoutes = report.Addresses, report.HostRoutes
		s.Clashes = clashes(n, report.HostRoutes)
		if r.opts.Now().Sub(seen) > r.opts.AliveTTL {
			// It has reported to another coordinator since.
			seen = time.Time{}
		}
	}
	s.LastSeen = seen
	return s
}

// lastSeen is when the agent at ip last reported to this coordinator.
func (r *Registry) lastSeen(ip netip.Addr) time.Time {
	at, _ := r.seen.Load(ip)
	t, _ := at.(time.Time)
	return t
}

// report is what the agent has said last. One that can't be read says nothing.
func (a aliveEntry) report() storedAlive {
	var s storedAlive
	_ = json.Unmarshal([]byte(a.value), &s)
	return s
}

// silence is one agent that has fallen silent or has been so for too long.
type silence struct {
	ip    netip.Addr
	since time.Time
	// reclaim is whether it is to be released, else it is to be marked.
	reclaim bool
}

// keepSilence records which agents are silent, and releases those that have
// been so for too long. What another coordinator does at the same time makes
// its own part void.
//
// An agent without a record that it lives counts as silent only once it has
// been so for a whole TTL in this coordinator's sight: after a start agents
// have that long to report, and a new one to report at all.
func (r *Registry) keepSilence(ctx context.Context) error {
	for _, s := range r.silences() {
		var err error
		if s.reclaim {
			err = r.reclaim(ctx, s)
		} else {
			err = r.markSilent(ctx, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// silences finds what is to be done.
func (r *Registry) silences() []silence {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.following || time.Since(r.looked) > max(r.opts.AliveTTL, maxChores+choresTimeout) {
		// Nobody can report now, or could while this process was halted.
		clear(r.quiet)
	}
	r.lookClearly()
	if !r.following {
		return nil
	}
	now := r.opts.Now()
	for ip := range r.quiet {
		if _, still := r.idx.tally.still[ip]; !still {
			delete(r.quiet, ip)
		}
	}
	var out []silence
	for ip := range r.idx.tally.still {
		noticed, ok := r.quiet[ip]
		if !ok {
			r.quiet[ip], noticed = now, now
		}
		if now.Sub(noticed) < r.opts.AliveTTL {
			continue
		}
		mark, marked := r.idx.silent[ip]
		switch {
		case !marked:
			out = append(out, silence{ip: ip, since: noticed})
		case r.opts.ReclaimAfter > 0 && now.Sub(mark.since) >= r.opts.ReclaimAfter:
			out = append(out, silence{ip: ip, since: mark.since, reclaim: true})
		}
	}
	return out
}

// markSilent records since when an agent is silent, for restarts and for other
// coordinators.
func (r *Registry) markSilent(ctx context.Context, s silence) error {
	marked := false
	_, _, err := r.change(ctx, fmt.Sprintf("mark agent %s as silent", s.ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(s.ip)}
		marked = r.stillSilent(x, p, s.ip) && x.silent[s.ip].rev == 0
		if marked {
			p.unchanged(keySilent(s.ip), 0)
			p.put(keySilent(s.ip), storedTime{Since: s.since.UTC()})
		}
		return p, nil
	})
	if err == nil && marked {
		r.opts.Log.Info("an agent is silent; it keeps what it holds", "agent", s.ip, "since", s.since.UTC())
	}
	return err
}

// reclaim releases what an agent holds that has been silent for too long.
func (r *Registry) reclaim(ctx context.Context, s silence) error {
	reclaimed := false
	_, _, err := r.change(ctx, fmt.Sprintf("reclaim from agent %s", s.ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(s.ip)}
		mark := x.silent[s.ip]
		reclaimed = r.stillSilent(x, p, s.ip) && mark.rev != 0 && mark.since.Equal(s.since)
		if reclaimed {
			p.unchanged(keySilent(s.ip), mark.rev)
			p.free(units(x.agents[s.ip].Agent), r.opts.Now())
			p.forget(x.agents[s.ip].Agent)
		}
		return p, nil
	})
	if err == nil && reclaimed {
		r.opts.Log.Warn("an agent was silent for too long; what it held is released", "agent", s.ip, "since", s.since.UTC(), "after", r.opts.ReclaimAfter)
	}
	return err
}

// stillSilent tells whether the agent at ip is there and not alive, and makes p
// hold only while that is so.
func (r *Registry) stillSilent(x *index, p *plan, ip netip.Addr) bool {
	if _, alive := x.alive[ip]; alive || x.agents[ip] == nil {
		return false
	}
	p.unchanged(keyAgent(ip), x.agentRev(ip))
	p.unchanged(keyAlive(ip), 0)
	return true
}
