// Package allocator decides which unit of an address space is next: which
// agent subnet of an overlay, which VTEP address of a pool. It is pure.
package allocator

import (
	"container/heap"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"time"

	"go4.org/netipx"
)

// Pool is one address space, cut into units of equal length. It hands out the
// lowest unit that was never used and, when there is none, the one that was
// released longest ago and has rested for the quarantine. It is not safe for
// concurrent use.
//
// Units are known by their prefixes alone, so that a Pool can be told what is
// used before it is told its shape.
type Pool struct {
	space netip.Prefix
	bits  int
	hosts bool
	// except is a part of space that is not handed out; zero for none.
	except netip.Prefix

	// cursor is at or below the lowest never-used unit; zero past the end.
	// Spaces of IPv6 are too wide for a bitmap, and a scan from the start
	// would make the n-th claim cost n.
	cursor   netip.Prefix
	used     map[netip.Prefix]struct{}
	released map[netip.Prefix]time.Time
	held     map[netip.Prefix]struct{}
	// ahead is at or below the lowest unit that is neither known nor held; no
	// more than the cursor means nothing. Without it, each of the claims that
	// are under way together would pass over all units of those before it.
	ahead netip.Prefix
	// rest has every released unit, and some that no longer are: those are
	// dropped when they come to the top.
	rest restHeap

	count count
}

// ExhaustedError says that no unit can be handed out now.
type ExhaustedError struct {
	Space netip.Prefix
	Bits  int
	// Hosts is true where units are single addresses.
	Hosts           bool
	Leased, Resting int
	// Held are units that were picked and are neither yet: if what they were
	// picked for fails, they are free again.
	Held int
	// Until is when the first resting unit may be used again; zero when
	// nothing rests.
	Until time.Time
}

func (e *ExhaustedError) Error() string {
	what := fmt.Sprintf("no free /%d of %s", e.Bits, e.Space)
	if e.Hosts {
		what = fmt.Sprintf("no free address of %s", e.Space)
	}
	if e.Resting == 0 {
		return fmt.Sprintf("%s: %d leased, none resting", what, e.Leased)
	}
	return fmt.Sprintf("%s: %d leased, %d released and resting, the first until %s",
		what, e.Leased, e.Resting, e.Until.UTC().Format(time.RFC3339))
}

// New makes a Pool without a shape: it hands out nothing.
func New() *Pool {
	return &Pool{
		used:     map[netip.Prefix]struct{}{},
		released: map[netip.Prefix]time.Time{},
		held:     map[netip.Prefix]struct{}{},
		count:    count{young: map[netip.Prefix]time.Time{}},
	}
}

// CutInto makes p hand out prefixes of the length bits out of space. A zero
// space, or bits that do not fit, leave nothing to hand out. Nothing of except,
// a part of space of whole units, is handed out; the zero Prefix is no part.
func (p *Pool) CutInto(space netip.Prefix, bits int, except netip.Prefix) {
	p.shape(space, bits, except, false)
}

// HostsOf makes p hand out the host addresses of space, as prefixes of full
// length: all but the first, which names the network, and the last, which is
// IPv4's broadcast address.
func (p *Pool) HostsOf(space netip.Prefix) {
	p.shape(space, space.Addr().BitLen(), netip.Prefix{}, true)
}

func (p *Pool) shape(space netip.Prefix, bits int, except netip.Prefix, hosts bool) {
	space, except = space.Masked(), except.Masked()
	if p.space == space && p.bits == bits && p.hosts == hosts && p.except == except {
		return
	}
	p.space, p.bits, p.hosts, p.except = space, bits, hosts, except
	defer p.recount()
	p.cursor = netip.Prefix{}
	if !space.IsValid() || bits < space.Bits() || bits > space.Addr().BitLen() {
		p.space = netip.Prefix{}
		return
	}
	p.ahead = netip.Prefix{}
	first := netip.PrefixFrom(space.Addr(), bits)
	if hosts {
		first = following(first)
	}
	if p.excepted(first) {
		first = p.next(first)
	}
	if first.IsValid() && p.fits(first) {
		p.cursor = first
	}
}

func (p *Pool) excepted(u netip.Prefix) bool { return p.except.IsValid() && p.except.Overlaps(u) }

// Shaped tells whether p was told of a space that it can hand out units of.
func (p *Pool) Shaped() bool { return p.space.IsValid() }

// Fits tells whether u is one of p's units.
func (p *Pool) Fits(u netip.Prefix) bool { return p.fits(u) }

func (p *Pool) fits(u netip.Prefix) bool {
	if !p.space.IsValid() || u.Bits() != p.bits || !p.space.Contains(u.Addr()) || u != u.Masked() || p.excepted(u) {
		return false
	}
	return !p.hosts || u.Addr() != p.space.Addr() && u.Addr() != netipx.PrefixLastIP(p.space)
}

// next is the unit after u; zero when u is the last.
func (p *Pool) next(u netip.Prefix) netip.Prefix {
	n := following(u)
	if p.excepted(n) {
		if last := netipx.PrefixLastIP(p.except).Next(); last.IsValid() {
			n = netip.PrefixFrom(last, u.Bits())
		}
	}
	if p.fits(n) {
		return n
	}
	return netip.Prefix{}
}

// following is the prefix right after u, of the same length; zero when u is
// the last of its family.
func following(u netip.Prefix) netip.Prefix {
	n := netipx.PrefixLastIP(u).Next()
	if !n.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(n, u.Bits())
}

// Use marks u as leased. A second time changes nothing.
func (p *Pool) Use(u netip.Prefix) {
	defer p.weigh(u, p.Used(u))
	p.used[u] = struct{}{}
}

// Unuse takes Use back.
func (p *Pool) Unuse(u netip.Prefix) {
	defer p.weigh(u, p.Used(u))
	delete(p.used, u)
	p.forgotten(u)
}

// Release marks u as released at since: it was used, and rests.
func (p *Pool) Release(u netip.Prefix, since time.Time) {
	if old, ok := p.released[u]; ok && old.Equal(since) {
		return
	}
	p.released[u] = since
	p.weigh(u, p.Used(u))
	heap.Push(&p.rest, resting{u, since})
}

// Unrelease takes Release back.
func (p *Pool) Unrelease(u netip.Prefix) {
	delete(p.released, u)
	p.weigh(u, p.Used(u))
	p.forgotten(u)
}

// forgotten makes u count as never used, if nothing else is known of it.
func (p *Pool) forgotten(u netip.Prefix) {
	if p.known(u) || !p.fits(u) {
		return
	}
	if !p.cursor.IsValid() || u.Addr().Less(p.cursor.Addr()) {
		p.cursor = u
	}
	p.free(u)
}

// free has the search for a unit find u again.
func (p *Pool) free(u netip.Prefix) {
	if p.ahead.IsValid() && u.Addr().Less(p.ahead.Addr()) {
		p.ahead = u
	}
}

// known tells whether u is used or was.
func (p *Pool) known(u netip.Prefix) bool {
	if _, ok := p.used[u]; ok {
		return true
	}
	_, ok := p.released[u]
	return ok
}

// Released yields the units that were released, and when.
func (p *Pool) Released() iter.Seq2[netip.Prefix, time.Time] { return maps.All(p.released) }

// Used tells whether u is leased.
func (p *Pool) Used(u netip.Prefix) bool {
	_, ok := p.used[u]
	return ok
}

// ReleasedAt tells since when u is released, if it is.
func (p *Pool) ReleasedAt(u netip.Prefix) (time.Time, bool) {
	since, ok := p.released[u]
	return since, ok
}

// Hold picks the next unit and keeps it from other callers until Drop. now
// less quarantine is the latest release that has rested enough. The error is
// an *ExhaustedError.
func (p *Pool) Hold(now time.Time, quarantine time.Duration) (netip.Prefix, error) {
	p.age(now.Add(-quarantine))
	u := p.neverUsed()
	if !u.IsValid() {
		u = p.rested(now.Add(-quarantine))
	}
	if !u.IsValid() {
		return netip.Prefix{}, p.exhausted(quarantine)
	}
	p.held[u] = struct{}{}
	return u, nil
}

// Drop ends a hold, whether or not its unit has come into use.
func (p *Pool) Drop(u netip.Prefix) {
	delete(p.held, u)
	if !p.known(u) && p.fits(u) {
		p.free(u)
	}
}

func (p *Pool) neverUsed() netip.Prefix {
	for p.cursor.IsValid() && p.known(p.cursor) {
		p.cursor = p.next(p.cursor)
	}
	// The cursor stays at a unit that is merely held: its claim may fail, and
	// then it is the lowest again.
	from := p.cursor
	if from.IsValid() && p.ahead.IsValid() && from.Addr().Less(p.ahead.Addr()) {
		from = p.ahead
	}
	for u := from; u.IsValid(); u = p.next(u) {
		if _, held := p.held[u]; !held && !p.known(u) {
			p.ahead = u
			return u
		}
	}
	return netip.Prefix{}
}

func (p *Pool) rested(latest time.Time) netip.Prefix {
	var aside []resting
	defer func() {
		for _, r := range aside {
			heap.Push(&p.rest, r)
		}
	}()
	for len(p.rest) > 0 {
		top := p.rest[0]
		if p.stale(top) {
			heap.Pop(&p.rest)
			continue
		}
		if top.since.After(latest) {
			break
		}
		_, held := p.held[top.unit]
		_, used := p.used[top.unit]
		if !held && !used && p.fits(top.unit) {
			return top.unit
		}
		aside = append(aside, heap.Pop(&p.rest).(resting))
	}
	return netip.Prefix{}
}

func (p *Pool) stale(r resting) bool {
	since, ok := p.released[r.unit]
	return !ok || !since.Equal(r.since)
}

func (p *Pool) exhausted(quarantine time.Duration) *ExhaustedError {
	e := &ExhaustedError{Space: p.space, Bits: p.bits, Hosts: p.hosts, Leased: len(p.used), Resting: len(p.released), Held: len(p.held)}
	if len(p.rest) > 0 {
		// rested has left none at the top that is no longer released.
		e.Until = p.rest[0].since.Add(quarantine)
	}
	return e
}

// resting is one entry of the heap.
type resting struct {
	unit  netip.Prefix
	since time.Time
}

// restHeap has the longest released first, of those the lowest.
type restHeap []resting

func (h restHeap) Len() int { return len(h) }
func (h restHeap) Less(i, j int) bool {
	if c := h[i].since.Compare(h[j].since); c != 0 {
		return c < 0
	}
	return h[i].unit.Addr().Less(h[j].unit.Addr())
}
func (h restHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *restHeap) Push(x any)   { *h = append(*h, x.(resting)) }
func (h *restHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
