package registry

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// batchOps is how many writes are put into one transaction of many agents:
	// a cluster's limit is 128 unless it was raised.
	batchOps = 96
	// maxNamed bounds how many agents a message names.
	maxNamed = 5
)

// Overlay returns the overlay called name, with how far it is in its life; the
// error is an *api.Error when there is none.
func (r *Registry) Overlay(ctx context.Context, name string) (api.Overlay, error) {
	if err := r.loaded(ctx); err != nil {
		return api.Overlay{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.idx.overlays[name]
	if !ok {
		return api.Overlay{}, fail(api.CodeNotFound, "there is no overlay %q: %s lists them", name, api.PathOverlays)
	}
	return r.described(o.Overlay), nil
}

// Overlays returns all overlays, in the configured order.
func (r *Registry) Overlays(ctx context.Context) ([]api.Overlay, error) {
	if err := r.loaded(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.allDescribed(), nil
}

// PutOverlay makes the overlay be as o says: it creates it, enables or
// disables it, isolates or opens it, ends its being deleted, changes how much
// an agent may hold and how that is split from the next claim on, or changes
// its addresses while nobody holds any. created tells whether it was not there
// before. Refusals are *api.Error.
func (r *Registry) PutOverlay(ctx context.Context, o network.Overlay) (created bool, err error) {
	_, _, err = r.change(ctx, fmt.Sprintf("write of overlay %s", o.Name), func(x *index) (*plan, error) {
		created = x.overlays[o.Name].rev == 0
		return x.planOverlay(o, r.opts.Now(), r.opts.Quarantine)
	})
	return created, err
}

// planOverlay plans what PutOverlay writes. It is pure.
func (x *index) planOverlay(o network.Overlay, now time.Time, quarantine time.Duration) (*plan, error) {
	if x.baseRev == 0 {
		return nil, errNoNetwork()
	}
	stored := x.overlays[o.Name]
	exists := stored.rev != 0
	p := &plan{read: keyNetwork}
	p.unchanged(keyNetwork, x.baseRev)
	p.unchanged(keyOverlay(o.Name), stored.rev)
	moves := !exists || !sameSpace(stored.Overlay, o)
	if exists && !stored.Deleting && sameOverlay(stored.Overlay, o) {
		return p, nil
	}
	alone := x.base
	alone.Overlays = []network.Overlay{o}
	if problems := alone.Validate(); len(problems) > 0 {
		return nil, fail(api.CodeInvalid, "%s", nameOverlays(problems, alone.Overlays))
	}
	if moves {
		if err := x.mayMove(o, now, quarantine); err != nil {
			return nil, err
		}
		p.noneBelow(dirSubnetsOf(o.Name))
	}
	if err := x.mayFix(p, stored.Overlay, o, now, quarantine); err != nil {
		return nil, err
	}
	if o.IsEnabled() && (moves || !stored.IsEnabled()) {
		if err := x.routedByHosts(o); err != nil {
			return nil, err
		}
	}
	order := stored.Order
	if !exists {
		for _, other := range x.overlays {
			order = max(order, other.Order+1)
		}
	}
	p.put(keyOverlay(o.Name), storedOverlay{Overlay: o, Order: order})
	if _, was := x.deleted[o.Name]; was {
		p.remove(keyDeleted(o.Name))
	}
	p.put(keyNetwork, x.base)
	return p, nil
}

func errNoNetwork() error {
	return fail(api.CodeUnavailable, "no network is configured yet: start a coordinator with --config")
}

func sameOverlay(a, b network.Overlay) bool {
	enabled := a.IsEnabled() == b.IsEnabled()
	a.Enabled, b.Enabled = nil, nil
	return enabled && a == b
}

func sameSpace(a, b network.Overlay) bool {
	return a.Subnet == b.Subnet && a.Prefix == b.Prefix && a.Subnet6 == b.Subnet6 && a.Prefix6 == b.Prefix6
}

// mayMove tells whether the addresses of o, which is new or has other ones so
// far, go with all that there is.
func (x *index) mayMove(o network.Overlay, now time.Time, quarantine time.Duration) error {
	if holders := x.holders(o.Name); len(holders) > 0 {
		return fail(api.CodeConflict, "overlay %s: its subnets and prefixes can't change while agents hold subnets of it: %s", o.Name, nameAgents(holders))
	}
	all := *x.net
	all.Overlays = slices.Clone(all.Overlays)
	if i := slices.IndexFunc(all.Overlays, func(other network.Overlay) bool { return other.Name == o.Name }); i >= 0 {
		// Judged last, it is the one that a problem is told of.
		all.Overlays = slices.Delete(all.Overlays, i, i+1)
	}
	all.Overlays = append(all.Overlays, o)
	if problems := all.Validate(); len(problems) > 0 {
		return fail(api.CodeConflict, "%s", nameOverlays(problems, all.Overlays))
	}
	return x.restsInside(o, now, quarantine)
}

// nameOverlays writes problems in one line, with names in the place of indices.
func nameOverlays(problems network.Problems, overlays []network.Overlay) string {
	text := strings.ReplaceAll(problems.Error(), "\n", "; ")
	for i, o := range overlays {
		path := fmt.Sprintf("overlays[%d]", i)
		if len(overlays) == 1 {
			text = strings.ReplaceAll(text, path+".", "")
		}
		text = strings.ReplaceAll(text, path, "overlay "+o.Name)
	}
	return text
}

// nameAgents names some agents, and counts the others.
func nameAgents(agents []*agentEntry) string {
	var names []string
	for _, a := range agents[:min(len(agents), maxNamed)] {
		names = append(names, a.IP.String())
	}
	text := strings.Join(names, ", ")
	if more := len(agents) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// restsInside tells of what was released lately inside o's spaces under
// another name or in another length: its quarantine would not be kept. What
// rests in the same cut keeps it by itself.
func (x *index) restsInside(o network.Overlay, now time.Time, quarantine time.Duration) error {
	var last time.Time
	var unit netip.Prefix
	var of string
	for id, pool := range x.pools {
		if id.overlay == "" {
			continue
		}
		space, bits := o.Subnet, o.Prefix
		if id.v6 {
			space, bits = o.Subnet6, o.Prefix6
		}
		for u, since := range pool.Released() {
			if id.overlay == o.Name && u.Bits() == bits || !space.IsValid() || !space.Overlaps(u) {
				continue
			}
			if since.After(last) {
				last, unit, of = since, u, id.overlay
			}
		}
	}
	if until := last.Add(quarantine); until.After(now) {
		return fail(api.CodeConflict, "overlay %s: %s, which overlay %s had, was released lately and rests until %s: try again then",
			o.Name, unit, of, until.UTC().Format(time.RFC3339))
	}
	return nil
}

// routedByHosts tells of hosts that are alive and route o's addresses elsewhere.
func (x *index) routedByHosts(o network.Overlay) error {
	var clashes []string
	more := 0
	for ip, a := range x.alive {
		for _, route := range a.report().HostRoutes {
			if !o.Subnet.Overlaps(route) && !o.Subnet6.Overlaps(route) {
				continue
			}
			clashes = append(clashes, fmt.Sprintf("%s at %s", route, ip))
			break
		}
	}
	if len(clashes) == 0 {
		return nil
	}
	slices.Sort(clashes)
	if more = len(clashes) - maxNamed; more > 0 {
		clashes = append(clashes[:maxNamed], fmt.Sprintf("and at %d more", more))
	}
	return fail(api.CodeConflict, "overlay %s: hosts route some of its addresses by themselves: %s", o.Name, strings.Join(clashes, ", "))
}

// DeleteOverlay makes the overlay go: nothing is leased from it any more, and
// it is gone as soon as nobody holds of it; gone tells whether that is so
// already. With force it is taken from all who hold of it. The error is an
// *api.Error when there never was such an overlay. Asking again is safe.
func (r *Registry) DeleteOverlay(ctx context.Context, name string, force bool) (gone bool, err error) {
	_, _, err = r.change(ctx, "delete of overlay "+name, func(x *index) (*plan, error) {
		p := &plan{read: keyNetwork}
		p.unchanged(keyNetwork, x.baseRev)
		stored, exists := x.overlays[name]
		switch _, was := x.deleted[name]; {
		case !exists && !was:
			return nil, fail(api.CodeNotFound, "there is no overlay %q: %s lists them", name, api.PathOverlays)
		case !exists || stored.Deleting:
			return p, nil
		}
		disabled := false
		stored.Enabled, stored.Deleting = &disabled, true
		p.put(keyOverlay(name), stored.storedOverlay)
		p.put(keyNetwork, x.base)
		return p, nil
	})
	if err != nil {
		return false, err
	}
	if force {
		if err := r.stripAll(ctx, name); err != nil {
			return false, err
		}
	}
	return r.removeDrained(ctx, name)
}

// stripAll takes the overlay from all who hold of it, several of them in one
// transaction.
func (r *Registry) stripAll(ctx context.Context, name string) error {
	for more := true; more; {
		_, _, err := r.change(ctx, "delete of overlay "+name, func(x *index) (*plan, error) {
			stored, exists := x.overlays[name]
			p := &plan{read: keyOverlay(name)}
			p.unchanged(keyOverlay(name), stored.rev)
			more = false
			if exists && !stored.Deleting {
				return nil, fail(api.CodeConflict, "overlay %s was put back while it was being deleted", name)
			}
			for _, a := range x.holders(name) {
				if more = len(p.ops) >= batchOps; more {
					break
				}
				p.strip(x, a.IP, name, r.opts.Now())
			}
			return p, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// strip takes one overlay from the agent at ip, if it holds of it.
func (p *plan) strip(x *index, ip netip.Addr, overlay string, now time.Time) {
	p.unchanged(keyAgent(ip), x.agentRev(ip))
	a := x.agents[ip]
	if a == nil || a.Overlay(overlay) == nil {
		return
	}
	c := a.Clone()
	p.free(overlayUnits(c.Overlay(overlay)), now)
	c.Overlays = slices.DeleteFunc(c.Overlays, func(o lease.Overlay) bool { return o.Name == overlay })
	p.put(keyAgent(ip), c)
}

// removeDrained removes an overlay that is being deleted and that nobody holds
// of; gone tells whether it is not there any more.
func (r *Registry) removeDrained(ctx context.Context, name string) (gone bool, err error) {
	_, _, err = r.change(ctx, "removal of overlay "+name, func(x *index) (*plan, error) {
		p := &plan{read: keyNetwork}
		p.unchanged(keyNetwork, x.baseRev)
		stored, exists := x.overlays[name]
		gone = !exists
		if gone || !stored.Deleting || x.tally.holders[name] > 0 {
			return p, nil
		}
		gone = true
		p.noneBelow(dirSubnetsOf(name))
		p.removeBelow(dirReservationsOf(name))
		p.remove(keyOverlay(name))
		p.put(keyDeleted(name), storedTime{Since: r.opts.Now().UTC()})
		p.put(keyNetwork, x.base)
		return p, nil
	})
	return gone && err == nil, err
}
