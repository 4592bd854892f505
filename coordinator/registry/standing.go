package registry

import (
	"net/netip"
	"time"
)

// standing is an agent's record with what the keys beside it say. It is never
// changed in place, so that who has a clone of the tree may read it.
type standing struct {
	*agentEntry
	// alive tells whether it has reported lately, and report what, as etcd has
	// it.
	alive  bool
	report string
	// silentSince is zero while it is alive, and before it is marked silent.
	silentSince time.Time
	mesos       mesosEntry
}

// tally counts the agents that have a record.
type tally struct {
	// still are those that are not alive.
	still map[netip.Addr]struct{}
	// gone are those that Mesos had and has no longer.
	gone int
	// holders are by overlay those that hold subnets or addresses of it.
	holders map[string]int
}

func newTally() tally {
	return tally{still: map[netip.Addr]struct{}{}, holders: map[string]int{}}
}

// stand brings up to date what the tree and the tally have of the agent at ip.
// Without a tree it does nothing.
func (x *index) stand(ip netip.Addr) {
	if x.byIP == nil {
		return
	}
	e := x.agents[ip]
	if e == nil {
		if was, ok := x.byIP.Delete(pivot(ip)); ok {
			x.tally.count(was, -1)
		}
		return
	}
	now := &standing{agentEntry: e, mesos: x.mesos[ip]}
	if alive, ok := x.alive[ip]; ok {
		now.alive, now.report = true, alive.value
	} else {
		now.silentSince = x.silent[ip].since
	}
	if was, ok := x.byIP.ReplaceOrInsert(now); ok {
		x.tally.count(was, -1)
	}
	x.tally.count(now, 1)
}

// count takes s in with n 1, and out with n -1.
func (t *tally) count(s *standing, n int) {
	switch {
	case s.alive:
	case n > 0:
		t.still[s.IP] = struct{}{}
	default:
		delete(t.still, s.IP)
	}
	if !s.mesos.Gone.IsZero() {
		t.gone += n
	}
	for _, o := range s.Overlays {
		if t.holders[o.Name] += n; t.holders[o.Name] == 0 {
			delete(t.holders, o.Name)
		}
	}
}
