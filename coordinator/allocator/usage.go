package allocator

import (
	"container/heap"
	"math"
	"net/netip"
	"time"
)

// Usage counts a pool's units.
type Usage struct {
	Leased, Resting int
	// Free are those that a claim could get now. A float: an IPv6 space has
	// more of them than an integer can count.
	Free float64
}

// count is kept with each change, so that nobody who asks for a Usage has to
// look at all units.
type count struct {
	// leased are the units in use that fit.
	leased int
	// young are the units that rest, since when: those that fit, are not in
	// use, and were released after cutoff.
	young  map[netip.Prefix]time.Time
	cutoff time.Time
	// aging has every young unit, and some that no longer are.
	aging restHeap
}

// Usage counts p's units as of now. What it costs does not depend on how many
// there are, but for those whose quarantine has ended since the last time, and
// if now is before that.
func (p *Pool) Usage(now time.Time, quarantine time.Duration) Usage {
	if !p.space.IsValid() {
		return Usage{}
	}
	p.age(now.Add(-quarantine))
	all := math.Ldexp(1, p.bits-p.space.Bits())
	if p.hosts {
		all = max(0, all-2)
	}
	if p.except.IsValid() {
		all -= math.Ldexp(1, p.bits-p.except.Bits())
	}
	u := Usage{Leased: p.count.leased, Resting: len(p.count.young)}
	u.Free = max(0, all-float64(u.Leased)-float64(u.Resting))
	return u
}

// weigh takes into the count what has become of u. wasUsed is whether it was in
// use before.
func (p *Pool) weigh(u netip.Prefix, wasUsed bool) {
	c := &p.count
	fits, used := p.fits(u), p.Used(u)
	switch {
	case !fits || used == wasUsed:
	case used:
		c.leased++
	default:
		c.leased--
	}
	since, released := p.released[u]
	if !fits || used || !released || !since.After(c.cutoff) {
		delete(c.young, u)
		return
	}
	if known, young := c.young[u]; !young || !known.Equal(since) {
		c.young[u] = since
		heap.Push(&c.aging, resting{u, since})
	}
}

// age makes cutoff the latest release that has rested enough.
func (p *Pool) age(cutoff time.Time) {
	c := &p.count
	back := cutoff.Before(c.cutoff)
	c.cutoff = cutoff
	if back {
		p.recount()
		return
	}
	for len(c.aging) > 0 && !c.aging[0].since.After(cutoff) {
		r := heap.Pop(&c.aging).(resting)
		if c.young[r.unit].Equal(r.since) {
			delete(c.young, r.unit)
		}
	}
}

// recount begins the count anew.
func (p *Pool) recount() {
	p.count = count{young: map[netip.Prefix]time.Time{}, cutoff: p.count.cutoff}
	for u := range p.used {
		p.weigh(u, false)
	}
	for u := range p.released {
		p.weigh(u, p.Used(u))
	}
}
