package registry

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"time"
)

// MarkSilent and Reclaim are steps of the housekeeping, at a time that a test
// chooses.
func (r *Registry) MarkSilent(ctx context.Context, ip netip.Addr, since time.Time) error {
	return r.markSilent(ctx, silence{ip: ip, since: since})
}

func (r *Registry) Reclaim(ctx context.Context, ip netip.Addr, since time.Time) error {
	return r.reclaim(ctx, silence{ip: ip, since: since, reclaim: true})
}

// ReleaseGone is a step of the housekeeping about an agent that is gone from
// Mesos.
func (r *Registry) ReleaseGone(ctx context.Context, ip netip.Addr) error {
	r.mu.Lock()
	d := duty{ip: ip, seen: r.idx.mesos[ip], release: true}
	r.mu.Unlock()
	return r.releaseGone(ctx, d)
}

// Differs says what the index has otherwise than one that is loaded anew; ""
// when there is nothing.
func (r *Registry) Differs(ctx context.Context) (string, error) {
	if err := r.catchUp(ctx); err != nil {
		return "", err
	}
	x, err := r.load(ctx, 3)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for ip, a := range x.agents {
		have := r.idx.agents[ip]
		if have == nil || have.rev != a.rev || string(have.line) != string(a.line) || !reflect.DeepEqual(have.Agent, a.Agent) {
			return fmt.Sprintf("agent %s is %+v, and in etcd %s", ip, have, a.line), nil
		}
	}
	if !reflect.DeepEqual(r.idx.tally, x.tally) {
		return fmt.Sprintf("the tally is %+v, and by etcd %+v", r.idx.tally, x.tally), nil
	}
	if len(r.idx.agents) != len(x.agents) || len(r.idx.own) > 0 {
		return fmt.Sprintf("there are %d agents, and in etcd %d; %d records are expected still", len(r.idx.agents), len(x.agents), len(r.idx.own)), nil
	}
	return "", nil
}

// Wait makes groups count as under way for d, so that a test can have calls
// wait for one.
func (r *Registry) Wait(d time.Duration) { r.group.patience = d }

// Waiting is how many calls wait for the next group.
func (r *Registry) Waiting() int {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	return len(r.group.waiting)
}
