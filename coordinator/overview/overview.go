// Package overview answers what the page asks: how the overlays are, and which
// agents fit a search. It keeps the agents in the form that searches need, so
// that a page of them is found among 65,536 in some milliseconds.
package overview

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

const (
	// share is the part of one core that bringing the rows up to date may
	// take: one in share, however many pages are open and however fast the
	// cluster changes.
	share = 10
	// maxAge bounds how old the rows get: while nothing changes, for what rests
	// is free after a time, without any event; and when the machine was so busy
	// that the last ones took long.
	maxAge = 5 * time.Second
)

// Overview answers queries; it is safe for concurrent use.
type Overview struct {
	registry *registry.Registry

	// building is held by whoever brings view up to date.
	building sync.Mutex
	mu       sync.Mutex
	view     *view // never changed in place; guarded by mu
}

// view is all agents as of one revision.
type view struct {
	sight registry.Sight
	rows  []*row // by IP
	built time.Time
	took  time.Duration
}

// row is one agent as searches need it.
type row struct {
	seen  registry.SeenAgent
	state api.AgentState
	// at is the index of the overlay that state is about; -1 without one.
	at int
	// text is all that a word can be found in, in lower case.
	text string
	// fullest is nil where no counts are known.
	fullest *api.Part
}

// New makes an Overview of what r knows.
func New(r *registry.Registry) *Overview { return &Overview{registry: r} }

// Answer is the overview that q asks for.
func (o *Overview) Answer(ctx context.Context, q Query) (api.Overview, error) {
	v, err := o.current(ctx)
	if err != nil {
		return api.Overview{}, err
	}
	return v.answer(q), nil
}

// current is a view of now or, where the last one took long to make, of a
// while ago.
func (o *Overview) current(ctx context.Context) (*view, error) {
	if v := o.fresh(); v != nil {
		return v, nil
	}
	o.building.Lock()
	defer o.building.Unlock()
	if v := o.fresh(); v != nil {
		return v, nil
	}
	begin := time.Now()
	sight, err := o.registry.Sight(ctx)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	old := o.view
	o.mu.Unlock()
	v := &view{sight: sight, rows: rows(sight.Agents, old)}
	v.built = time.Now()
	if old != nil {
		// What all rows take that are made at once, the next ones do not.
		v.took = v.built.Sub(begin)
	}
	o.mu.Lock()
	o.view = v
	o.mu.Unlock()
	return v, nil
}

// fresh is the last view if it will do, else nil.
func (o *Overview) fresh() *view {
	o.mu.Lock()
	v := o.view
	o.mu.Unlock()
	if v == nil {
		return nil
	}
	age := time.Since(v.built)
	if age < min(share*v.took, maxAge) || age < maxAge && v.sight.Revision == o.registry.Revision() {
		return v
	}
	return nil
}

// rows makes a row of each agent, or takes it from old if nothing is new.
func rows(agents []registry.SeenAgent, old *view) []*row {
	var before []*row
	if old != nil {
		before = old.rows
	}
	out := make([]*row, 0, len(agents))
	for _, a := range agents {
		// Both are in order of their addresses.
		for len(before) > 0 && before[0].seen.IP.Less(a.IP) {
			before = before[1:]
		}
		if len(before) > 0 && before[0].seen.IP == a.IP && a.Same(before[0].seen) {
			out = append(out, before[0])
			continue
		}
		out = append(out, newRow(a))
	}
	return out
}

func newRow(a registry.SeenAgent) *row {
	r := &row{seen: a, text: text(a.Agent)}
	r.state, r.at = state(a)
	if a.Alive {
		r.fullest = fullest(a)
	}
	return r
}

// state is an agent in one word, and the overlay that it is about.
func state(a registry.SeenAgent) (api.AgentState, int) {
	if !a.Alive {
		return api.AgentSilent, -1
	}
	configuring := -1
	for i, o := range a.Overlays {
		switch o.State.Status {
		case lease.StatusFailed, lease.StatusInvalid:
			return api.AgentFailed, i
		case lease.StatusOK:
		default:
			configuring = i
		}
	}
	if configuring >= 0 {
		return api.AgentConfiguring, configuring
	}
	return api.AgentOK, -1
}

// text is what can be searched for: addresses, subnets, names, and what is
// wrong.
func text(a *lease.Agent) string {
	parts := []string{a.IP.String(), a.VTEP.IP.Addr().String(), a.VTEP.MAC.String(), a.ID}
	if a.VTEP.IP6.IsValid() {
		parts = append(parts, a.VTEP.IP6.Addr().String())
	}
	for _, o := range a.Overlays {
		parts = append(parts, o.Name)
		for _, p := range o.Destinations() {
			parts = append(parts, p.String())
		}
		if o.State.Error != "" {
			parts = append(parts, o.State.Error)
		}
	}
	return strings.ToLower(strings.Join(parts, "\n"))
}

// fullest is the part of a's subnets with the greatest share in use; of equal
// ones the one with the fewest addresses left.
func fullest(a registry.SeenAgent) *api.Part {
	var worst *api.Part
	for name, addresses := range a.Addresses() {
		for _, p := range []struct {
			containerizer string
			usage         *api.Usage
		}{{"mesos", addresses.Mesos}, {"docker", addresses.Docker}} {
			if p.usage == nil {
				continue
			}
			part := &api.Part{Overlay: name, Containerizer: p.containerizer, Usage: *p.usage}
			if worst == nil || compareParts(part, worst) > 0 {
				worst = part
			}
		}
	}
	return worst
}

// compareParts is positive if a is the fuller one. Names decide in the end, so
// that the answer to one question is always the same.
func compareParts(a, b *api.Part) int {
	return cmp.Or(
		cmp.Compare(fill(a), fill(b)),
		cmp.Compare(b.Free, a.Free),
		cmp.Compare(b.Overlay, a.Overlay),
		cmp.Compare(a.Containerizer, b.Containerizer),
	)
}

// fill is the share of p's addresses that are in use, from 0 to 1; nothing
// known is less than 0.
func fill(p *api.Part) float64 {
	switch {
	case p == nil:
		return -1
	case p.Used == 0:
		return 0
	}
	// Free may be the largest integer, so the sum is not made of integers.
	return float64(p.Used) / (float64(p.Used) + float64(p.Free))
}

// answer is what of v fits q.
func (v *view) answer(q Query) api.Overview {
	resp := api.Overview{
		Epoch: v.sight.Epoch, Revision: v.sight.Revision, Now: time.Now().UTC(),
		Overlays: v.sight.Overlays, VTEPs: v.sight.VTEPs,
		Total: len(v.rows), States: map[api.AgentState]int{}, Agents: []api.OverviewAgent{},
	}
	var fitting []*row
	for _, r := range v.rows {
		if !q.fits(r) {
			continue
		}
		resp.States[r.state]++
		if q.State == "" || q.State == r.state {
			fitting = append(fitting, r)
		}
	}
	q.sort(fitting)
	resp.Matching = len(fitting)
	// An offset behind the end shows the last page: agents may have gone.
	resp.Offset = min(q.Offset, max(0, (resp.Matching-1)/q.Limit*q.Limit))
	for _, r := range fitting[resp.Offset:min(resp.Matching, resp.Offset+q.Limit)] {
		resp.Agents = append(resp.Agents, r.show())
	}
	return resp
}

func (r *row) show() api.OverviewAgent {
	a := r.seen
	out := api.OverviewAgent{
		IP: a.IP, State: r.state, SilentSince: a.SilentSince,
		VTEP: a.VTEP.IP, VTEP6: a.VTEP.IP6, MAC: a.VTEP.MAC,
		Overlays: a.Overlays, Fullest: r.fullest,
	}
	if r.at >= 0 {
		out.Overlay, out.Reason = a.Overlays[r.at].Name, a.Overlays[r.at].State.Error
	}
	return out
}

// sort puts rows, which are by IP, into q's order.
func (q Query) sort(rows []*row) {
	var by func(a, b *row) int
	switch q.Sort {
	case api.OrderState:
		by = func(a, b *row) int { return cmp.Compare(severity(a.state), severity(b.state)) }
	case api.OrderVTEP:
		by = func(a, b *row) int { return a.seen.VTEP.IP.Addr().Compare(b.seen.VTEP.IP.Addr()) }
	case api.OrderUse:
		by = func(a, b *row) int { return cmp.Compare(fill(a.fullest), fill(b.fullest)) }
	default:
		by = func(a, b *row) int { return a.seen.IP.Compare(b.seen.IP) }
	}
	if q.Descending {
		ascending := by
		by = func(a, b *row) int { return ascending(b, a) }
	}
	if q.Sort != api.OrderIP || q.Descending {
		slices.SortStableFunc(rows, by)
	}
}

// severity is greater for what an operator should see first.
func severity(s api.AgentState) int {
	switch s {
	case api.AgentFailed:
		return 3
	case api.AgentSilent:
		return 2
	case api.AgentConfiguring:
		return 1
	}
	return 0
}

// fits tells whether r is one of those that q asks for, in whatever state.
func (q Query) fits(r *row) bool {
	if q.Overlay != "" && r.seen.Overlay(q.Overlay) == nil {
		return false
	}
	for _, w := range q.words {
		if !strings.Contains(r.text, w.text) && !(w.addr.IsValid() && holds(r.seen.Agent, w.addr)) {
			return false
		}
	}
	return true
}

// holds tells whether addr is of one of a's subnets.
func holds(a *lease.Agent, addr netip.Addr) bool {
	for _, o := range a.Overlays {
		for _, p := range o.Subnets {
			if p.Contains(addr) {
				return true
			}
		}
		for _, p := range o.Subnets6 {
			if p.Contains(addr) {
				return true
			}
		}
	}
	return false
}
