package registry

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// MesosView is what Mesos says of its agents at one time. Which ids there are
// behind one address does not matter, but that there is one.
type MesosView struct {
	// Registered are the addresses of agents, with the id of one there.
	Registered map[netip.Addr]string
	// Recovered are the ids of agents that a new master knows of the one
	// before it, and that have not come to it yet.
	Recovered map[string]bool
	// Removed are the addresses of agents that were seen to be removed, with
	// the id of one that was there; RemovedIDs are all their ids.
	Removed    map[netip.Addr]string
	RemovedIDs map[string]bool
}

// storedMesos is the value of a key below mesos/: that Mesos has had an agent
// at that address.
type storedMesos struct {
	// ID is Mesos's for the agent.
	ID string `json:"id"`
	// Gone is since when Mesos has it no longer; zero while it has it.
	Gone time.Time `json:"gone_since,omitzero"`
}

// keepMesos takes down what Mesos says of the agents that have a record, and
// releases those that have been gone for the grace period. While Mesos is not
// heard of nothing is concluded, not even from what was taken down before.
func (r *Registry) keepMesos(ctx context.Context) error {
	if r.opts.Mesos == nil {
		return nil
	}
	view, ok := r.opts.Mesos()
	if !ok {
		return nil
	}
	for _, d := range r.mesosDuties(view) {
		var err error
		if d.release {
			err = r.releaseGone(ctx, d)
		} else {
			err = r.noteMesos(ctx, d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// duty is what is to be done about one agent.
type duty struct {
	ip   netip.Addr
	seen mesosEntry
	// want is what is to be taken down, unless release.
	want    storedMesos
	release bool
}

// mesosDuties finds what is to be done.
func (r *Registry) mesosDuties(view MesosView) []duty {
	r.mu.Lock()
	following, agents := r.following, r.idx.byIP.Clone()
	r.mu.Unlock()
	if !following {
		return nil
	}
	now := r.opts.Now()
	spared := map[netip.Addr]bool{}
	var out []duty
	for a := range ascend(agents, netip.Addr{}) {
		ip, seen := a.IP, a.mesos
		want, known := view.judge(ip, seen, now)
		switch {
		case !known:
		case want != seen.storedMesos:
			out = append(out, duty{ip: ip, seen: seen, want: want})
		case want.Gone.IsZero() || now.Sub(want.Gone) < r.opts.MesosGrace || len(view.Recovered) > 0:
		case a.alive:
			spared[ip] = true
			if !r.spared[ip] {
				r.opts.Log.Warn("an agent is gone from Mesos for longer than the grace period, and is alive; it keeps what it holds", "agent", ip, "since", want.Gone)
			}
		default:
			// It has had time to report to this coordinator; see silences,
			// which alone writes r.quiet, in this goroutine.
			if noticed, quiet := r.quiet[ip]; quiet && now.Sub(noticed) >= r.opts.AliveTTL {
				out = append(out, duty{ip: ip, seen: seen, release: true})
			}
		}
	}
	r.spared = spared
	return out
}

// judge is what there is to say of the agent at ip, of which seen was said
// before. known is false where Mesos never had it.
func (v MesosView) judge(ip netip.Addr, seen mesosEntry, now time.Time) (want storedMesos, known bool) {
	if id, ok := v.Registered[ip]; ok {
		return storedMesos{ID: id}, true
	}
	had := seen.rev != 0
	if had && v.Recovered[seen.ID] {
		return storedMesos{ID: seen.ID}, true
	}
	removed, wasHere := v.Removed[ip]
	switch {
	case had && !seen.Gone.IsZero():
		return seen.storedMesos, true
	case had && (wasHere || v.RemovedIDs[seen.ID]):
		return storedMesos{ID: seen.ID, Gone: now.UTC()}, true
	case wasHere:
		return storedMesos{ID: removed, Gone: now.UTC()}, true
	case had && len(v.Recovered) == 0:
		// It was removed while nobody followed. During a master's recovery
		// that an agent is missing may only mean that it comes yet.
		return storedMesos{ID: seen.ID, Gone: now.UTC()}, true
	}
	return seen.storedMesos, had
}

// noteMesos takes down what Mesos says of an agent, unless another coordinator
// has done so.
func (r *Registry) noteMesos(ctx context.Context, d duty) error {
	noted := false
	_, _, err := r.change(ctx, fmt.Sprintf("take down what Mesos says of agent %s", d.ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(d.ip)}
		noted = x.agents[d.ip] != nil && x.mesos[d.ip] == d.seen
		if noted {
			p.unchanged(keyAgent(d.ip), x.agentRev(d.ip))
			p.unchanged(keyMesos(d.ip), d.seen.rev)
			p.put(keyMesos(d.ip), d.want)
		}
		return p, nil
	})
	if err != nil || !noted {
		return err
	}
	switch was, is := d.seen.Gone, d.want.Gone; {
	case was.IsZero() && !is.IsZero():
		r.opts.Log.Warn("an agent is gone from Mesos; it keeps what it holds for the grace period", "agent", d.ip, "mesos-id", d.want.ID, "grace", r.opts.MesosGrace)
	case !was.IsZero() && is.IsZero():
		r.opts.Log.Info("an agent is back in Mesos", "agent", d.ip, "mesos-id", d.want.ID)
	}
	return nil
}

// releaseGone releases what an agent holds that has been gone from Mesos for
// the grace period.
func (r *Registry) releaseGone(ctx context.Context, d duty) error {
	released := false
	_, _, err := r.change(ctx, fmt.Sprintf("release agent %s, which is gone from Mesos", d.ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(d.ip)}
		released = x.mesos[d.ip] == d.seen && r.stillSilent(x, p, d.ip)
		if released {
			p.unchanged(keyMesos(d.ip), d.seen.rev)
			p.free(units(x.agents[d.ip].Agent), r.opts.Now())
			p.forget(x.agents[d.ip].Agent)
		}
		return p, nil
	})
	if err == nil && released {
		r.opts.Log.Warn("an agent was gone from Mesos for the grace period; what it held is released", "agent", d.ip, "mesos-id", d.seen.ID, "since", d.seen.Gone)
		r.wakeHousekeeping()
	}
	return err
}
