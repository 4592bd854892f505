package registry

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// maxAddresses is how many fixed addresses of one overlay an agent may
	// hold: it must be able to give them back in a transaction of etcd's usual
	// limit, 128 operations, together with its subnets.
	maxAddresses = 48
	// maxContainerLen bounds a container's name, in bytes, and maxIfName that
	// of its interface, as Linux does (IFNAMSIZ).
	maxContainerLen = 1024
	maxIfName       = 15
	// maxLabels bounds a container's labels in number, and maxLabelLen one of
	// them in bytes.
	maxLabels   = 256
	maxLabelLen = 1024
)

// addressID names a fixed address: an overlay may be made anew over the space
// of one that is gone.
type addressID struct {
	overlay string
	ip      netip.Addr
}

// storedAddress is the value of a key below addresses/: whose the address is.
type storedAddress struct {
	Agent     netip.Addr `json:"agent"`
	Container string     `json:"container"`
	Interface string     `json:"interface"`
	// Label is the one that it was reserved for when it was claimed.
	Label string    `json:"label,omitempty"`
	Since time.Time `json:"since"`
}

// storedReservation is the value of a key below reservations/.
type storedReservation struct {
	Label string    `json:"label"`
	Since time.Time `json:"since"`
}

type addressEntry struct {
	storedAddress
	rev int64
}

type reservedEntry struct {
	storedReservation
	rev int64
}

func keyAddress(a addressID) string { return dirAddressesOf(a.overlay) + a.ip.String() }

func keyReservation(a addressID) string { return dirReservationsOf(a.overlay) + a.ip.String() }

// dirAddressesOf and dirReservationsOf are where those of one overlay are.
func dirAddressesOf(overlay string) string    { return dirAddresses + overlay + "/" }
func dirReservationsOf(overlay string) string { return dirReservations + overlay + "/" }

func addressUnit(a addressID) unit {
	return unit{
		pool:   poolID{overlay: a.overlay, v6: a.ip.Is6()},
		prefix: netip.PrefixFrom(a.ip, a.ip.BitLen()),
		key:    keyAddress(a),
	}
}

// address is the fixed address that u is, if it is one.
func (u unit) address() addressID { return addressID{u.pool.overlay, u.prefix.Addr()} }

func parseAddressID(key, rest string) (addressID, error) {
	overlay, text, _ := strings.Cut(rest, "/")
	ip, err := netip.ParseAddr(text)
	if err != nil || overlay == "" {
		return addressID{}, fmt.Errorf("etcd key %s: not an address", key)
	}
	return addressID{overlay, ip}, nil
}

func (x *index) applyAddress(rest string, kv keyValue) error {
	id, err := parseAddressID(kv.key, rest)
	if err != nil {
		return err
	}
	if kv.value == nil {
		delete(x.addresses, id)
		return nil
	}
	// One that can't be read is nobody's, and its revision still counts for
	// whoever takes it.
	held, err := decode[storedAddress](kv)
	x.addresses[id] = addressEntry{held, kv.rev}
	return err
}

func (x *index) applyReservation(rest string, kv keyValue) error {
	id, err := parseAddressID(kv.key, rest)
	if err != nil {
		return err
	}
	if kv.value == nil {
		delete(x.reserved, id)
		return nil
	}
	kept, err := decode[storedReservation](kv)
	x.reserved[id] = reservedEntry{kept, kv.rev}
	return err
}

// ClaimAddress gives a container of the agent at ip a fixed address of the
// overlay, in one transaction. One that another agent holds is taken from it
// only if that agent has been silent for the overlay's takeover time; another
// container of the same agent gives way, for the agent itself knows which of
// its containers are there. Errors that the caller can do something about are
// *api.Error.
func (r *Registry) ClaimAddress(ctx context.Context, ip netip.Addr, overlay string, addr netip.Addr, req api.AddressRequest) (api.ClaimResponse, error) {
	if err := checkAddressRequest(req); err != nil {
		return api.ClaimResponse{}, err
	}
	var n *network.Network
	var deleting []string
	var from netip.Addr
	what := fmt.Sprintf("claim of %s by agent %s", addr, ip)
	p, rev, err := r.changeShared(ctx, what, func(x *index) (*plan, error) {
		n, deleting = x.net, x.deleting()
		var p *plan
		var err error
		p, from, err = r.planAddress(x, ip, addressID{overlay, addr}, req)
		return p, err
	})
	if err != nil {
		return api.ClaimResponse{}, err
	}
	if from.IsValid() {
		r.opts.Log.Warn("a fixed address goes from an agent that is silent to another", "address", addr, "overlay", overlay, "from", from, "to", ip, "container", req.Container)
	}
	return api.ClaimResponse{Agent: *p.agent, Network: *n, Deleting: deleting, Revision: rev}, nil
}

func checkAddressRequest(req api.AddressRequest) error {
	switch {
	case req.Container == "" || len(req.Container) > maxContainerLen:
		return fail(api.CodeInvalid, "container must be the name of one, of %d bytes at most", maxContainerLen)
	case req.Interface == "" || len(req.Interface) > maxIfName:
		return fail(api.CodeInvalid, "ifname must be the name of the container's interface, of %d bytes at most", maxIfName)
	case len(req.Labels) > maxLabels:
		return fail(api.CodeInvalid, "there are %d labels: at most %d are taken", len(req.Labels), maxLabels)
	}
	return nil
}

// planAddress plans what ClaimAddress writes. from is the agent that loses the
// address by that, if any does.
func (r *Registry) planAddress(x *index, ip netip.Addr, id addressID, req api.AddressRequest) (p *plan, from netip.Addr, err error) {
	p = &plan{read: keyAgent(ip)}
	self := x.agents[ip]
	if self == nil || self.ID != req.ID {
		return nil, from, fail(api.CodeNotFound, "there is no agent %s with id %s: claim a lease first", ip, req.ID)
	}
	o, ok := x.net.Overlay(id.overlay)
	if !ok {
		return nil, from, fail(api.CodeNotFound, "there is no overlay %q", id.overlay)
	}
	a := self.Clone()
	mine := a.Overlay(o.Name)
	if err := x.mayHold(o, id.ip, a); err != nil {
		return nil, from, err
	}
	p.unchanged(keyAgent(ip), self.rev)
	p.unchanged(keyOverlay(o.Name), x.overlays[o.Name].rev)
	kept, held := x.reserved[id], x.addresses[id]
	p.unchanged(keyReservation(id), kept.rev)
	p.unchanged(keyAddress(id), held.rev)
	if kept.rev != 0 && !carries(req.Labels, kept.Label) {
		return nil, from, fail(api.CodeConflict, "address %s of overlay %s is reserved for containers with the label %q: give container %s that label, or ask for another address", id.ip, o.Name, kept.Label, req.Container)
	}
	want := lease.Address{IP: id.ip, Container: req.Container, Interface: req.Interface}
	p.agent = a
	if held.Agent == ip && slices.Contains(mine.Addresses, want) {
		return p, from, nil
	}
	if other := x.agents[held.Agent]; held.rev != 0 && held.Agent != ip && other != nil {
		if why := r.notSilent(x, held.storedAddress, o.Takeover()); why != "" {
			return nil, from, taken(id, held, why)
		}
		from = held.Agent
		p.unchanged(keyAlive(from), 0)
		p.unchanged(keyAgent(from), other.rev)
		less := other.Clone()
		if o := less.Overlay(id.overlay); o != nil {
			o.DropAddress(id.ip)
		}
		// Before our own, so that no reader ever sees the address at two.
		p.put(keyAgent(from), less)
	}
	mine.SetAddress(want)
	if len(mine.Addresses) > maxAddresses {
		return nil, from, fail(api.CodeExhausted, "overlay %s: agent %s holds %d fixed addresses, and more than that no agent gets: start the container on another one", o.Name, ip, maxAddresses)
	}
	p.put(keyAgent(ip), a)
	p.put(keyAddress(id), storedAddress{Agent: ip, Container: req.Container, Interface: req.Interface, Label: kept.Label, Since: r.opts.Now().UTC()})
	return p, from, nil
}

// mayHold tells whether agent a may have a container with the fixed address ip
// of o.
func (x *index) mayHold(o network.Overlay, ip netip.Addr, a *lease.Agent) error {
	mine := a.Overlay(o.Name)
	switch {
	case x.overlays[o.Name].Deleting:
		return fail(api.CodeDisabled, "overlay %s is being deleted: nothing is claimed of it any more", o.Name)
	case !o.IsEnabled():
		return fail(api.CodeDisabled, "overlay %s is disabled: nothing is claimed of it until it is enabled", o.Name)
	case mine == nil:
		return fail(api.CodeConflict, "agent %s holds no subnet of overlay %s: claim that first", a.IP, o.Name)
	case !o.IsStatic(ip):
		return fail(api.CodeConflict, "address %s can't be given on agent %s: fixed addresses of overlay %s are of %s, and others of the agent's own subnets %v",
			ip, a.IP, o.Name, statics(o), mine.AllSubnets())
	}
	return nil
}

// statics are what an overlay's fixed addresses are of, in words.
func statics(o network.Overlay) string {
	if all := o.Statics(); len(all) > 0 {
		return fmt.Sprint(all)
	}
	return "none, for it has no static_subnet"
}

func taken(id addressID, by addressEntry, why string) error {
	return fail(api.CodeConflict, "address %s of overlay %s is taken: container %s (%s) on agent %s has it, %s", id.ip, id.overlay, by.Container, by.Interface, by.Agent, why)
}

// carries tells whether one of labels is the wanted one: a key, or a key and
// its value.
func carries(labels []string, wanted string) bool {
	return slices.ContainsFunc(labels, func(l string) bool {
		key, _, _ := strings.Cut(l, "=")
		return l == wanted || key == wanted
	})
}

// lookClearly notes since when agents could report without a break. A round of
// housekeeping that came much too late means that this process was halted. The
// lock is held.
func (r *Registry) lookClearly() {
	if !r.following || time.Since(r.looked) > 3*r.choresEvery() {
		r.clear = time.Time{}
	}
	r.looked = time.Now()
	if r.following && r.clear.IsZero() {
		r.clear = r.looked
	}
}

// notSilent is why the agent that holds an address does not count as silent for
// so long; nothing if it does. Its last report was before its alive key ended,
// by the TTL at least. That the key is missing says something only if agents
// could report all that time. Its claim was a word of its, too. The lock is held.
func (r *Registry) notSilent(x *index, held storedAddress, takeover time.Duration) string {
	ip := held.Agent
	if _, alive := x.alive[ip]; alive {
		return fmt.Sprintf("which is alive: the address is free when that container ends, or %s after the agent has fallen silent", takeover)
	}
	if r.clear.IsZero() || time.Since(r.looked) > 3*r.choresEvery() || time.Since(r.clear) < r.opts.AliveTTL {
		return fmt.Sprintf("and this coordinator does not know for %s yet whether that is alive: try again", r.opts.AliveTTL)
	}
	now := r.opts.Now()
	since := now
	if noticed, ok := r.quiet[ip]; ok {
		since = noticed
	}
	if mark := x.silent[ip]; mark.rev != 0 && mark.since.Before(since) {
		since = mark.since
	}
	if left := max(takeover-r.opts.AliveTTL-now.Sub(since), takeover-now.Sub(held.Since)); left > 0 {
		return fmt.Sprintf("which is silent: the address can be taken over in %s", left.Round(time.Second))
	}
	return ""
}

// ReleaseAddress takes a fixed address from that container of the agent at ip.
// One that it does not hold is no error.
func (r *Registry) ReleaseAddress(ctx context.Context, ip netip.Addr, overlay string, addr netip.Addr, container, ifName string) error {
	id := addressID{overlay, addr}
	_, _, err := r.changeShared(ctx, fmt.Sprintf("release of %s by agent %s", addr, ip), func(x *index) (*plan, error) {
		p := &plan{read: keyAgent(ip)}
		self, held := x.agents[ip], x.addresses[id]
		p.unchanged(keyAgent(ip), x.agentRev(ip))
		p.unchanged(keyAddress(id), held.rev)
		if self == nil || held.Agent != ip || held.Container != container || held.Interface != ifName {
			return p, nil
		}
		a := self.Clone()
		if o := a.Overlay(overlay); o != nil {
			o.DropAddress(addr)
		}
		p.remove(keyAddress(id))
		p.put(keyAgent(ip), a)
		return p, nil
	})
	return err
}

// Addresses are the fixed addresses of the overlay that are held, in order.
func (r *Registry) Addresses(ctx context.Context, overlay string) ([]api.FixedAddress, error) {
	if _, err := r.Overlay(ctx, overlay); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []api.FixedAddress{}
	for _, id := range inOrder(r.idx.addresses, overlay) {
		out = append(out, *r.idx.holder(id))
	}
	return out, nil
}

// inOrder are the addresses of one overlay.
func inOrder[E any](all map[addressID]E, overlay string) []addressID {
	ids := slices.Collect(maps.Keys(all))
	ids = slices.DeleteFunc(ids, func(id addressID) bool { return id.overlay != overlay })
	slices.SortFunc(ids, func(a, b addressID) int { return a.ip.Compare(b.ip) })
	return ids
}

// holder is who holds a fixed address, or nil.
func (x *index) holder(id addressID) *api.FixedAddress {
	held, ok := x.addresses[id]
	if !ok {
		return nil
	}
	return &api.FixedAddress{Address: id.ip, Agent: held.Agent, Container: held.Container, Interface: held.Interface, Label: held.Label, Since: held.Since}
}

// PutReservation keeps a fixed address for containers that carry the label.
// Whoever has it now keeps it. Refusals are *api.Error.
func (r *Registry) PutReservation(ctx context.Context, overlay string, addr netip.Addr, label string) (api.Reservation, error) {
	if label == "" || len(label) > maxLabelLen {
		return api.Reservation{}, fail(api.CodeInvalid, "label must be a key, or a key and a value as in role=database, of %d bytes at most", maxLabelLen)
	}
	id := addressID{overlay, addr}
	var out api.Reservation
	_, _, err := r.change(ctx, fmt.Sprintf("reservation of %s", addr), func(x *index) (*plan, error) {
		o, ok := x.net.Overlay(overlay)
		if !ok {
			return nil, fail(api.CodeNotFound, "there is no overlay %q", overlay)
		}
		if !o.IsStatic(addr) {
			return nil, fail(api.CodeConflict, "address %s can't be reserved: fixed addresses of overlay %s are of %s", addr, overlay, statics(o))
		}
		p := &plan{read: keyReservation(id)}
		kept := x.reserved[id]
		p.unchanged(keyOverlay(overlay), x.overlays[overlay].rev)
		p.unchanged(keyReservation(id), kept.rev)
		if kept.rev == 0 || kept.Label != label {
			kept.storedReservation = storedReservation{Label: label, Since: r.opts.Now().UTC()}
			p.put(keyReservation(id), kept.storedReservation)
		}
		out = api.Reservation{Address: addr, Label: label, Since: kept.Since, Holder: x.holder(id)}
		return p, nil
	})
	return out, err
}

// DeleteReservation makes a fixed address anybody's again. One that is not
// reserved is no error.
func (r *Registry) DeleteReservation(ctx context.Context, overlay string, addr netip.Addr) error {
	id := addressID{overlay, addr}
	_, _, err := r.change(ctx, fmt.Sprintf("end of the reservation of %s", addr), func(x *index) (*plan, error) {
		p := &plan{read: keyReservation(id)}
		p.unchanged(keyReservation(id), x.reserved[id].rev)
		if _, there := x.reserved[id]; there {
			p.remove(keyReservation(id))
		}
		return p, nil
	})
	return err
}

// Reservations are the fixed addresses of the overlay that are kept for labels,
// in order.
func (r *Registry) Reservations(ctx context.Context, overlay string) ([]api.Reservation, error) {
	if _, err := r.Overlay(ctx, overlay); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []api.Reservation{}
	for _, id := range inOrder(r.idx.reserved, overlay) {
		kept := r.idx.reserved[id]
		out = append(out, api.Reservation{Address: id.ip, Label: kept.Label, Since: kept.Since, Holder: r.idx.holder(id)})
	}
	return out, nil
}

// mayFix tells whether o, which was stored so far, can have its fixed
// addresses where it says, and makes p hold only while that is so.
func (x *index) mayFix(p *plan, stored, o network.Overlay, now time.Time, quarantine time.Duration) error {
	if stored.StaticSubnet == o.StaticSubnet && stored.StaticSubnet6 == o.StaticSubnet6 {
		return nil
	}
	p.quietBelow(dirSubnetsOf(o.Name), x.rev)
	p.quietBelow(dirAddressesOf(o.Name), x.rev)
	p.quietBelow(dirReservationsOf(o.Name), x.rev)
	inside := func(u netip.Prefix) bool { return o.Static(u.Addr().Is6()).Overlaps(u) }
	var holders []*agentEntry
	for _, a := range x.holders(o.Name) {
		if slices.ContainsFunc(a.Overlay(o.Name).AllSubnets(), inside) {
			holders = append(holders, a)
		}
	}
	if len(holders) > 0 {
		return fail(api.CodeConflict, "overlay %s: static_subnet can't be where agents hold subnets: %s", o.Name, nameAgents(holders))
	}
	for _, v6 := range []bool{false, true} {
		for u, since := range x.pool(poolID{overlay: o.Name, v6: v6}).Released() {
			if inside(u) && since.Add(quarantine).After(now) {
				return fail(api.CodeConflict, "overlay %s: %s, which would be of static_subnet, was released lately and rests until %s: try again then",
					o.Name, u, since.Add(quarantine).UTC().Format(time.RFC3339))
			}
		}
	}
	for _, id := range slices.Concat(inOrder(x.addresses, o.Name), inOrder(x.reserved, o.Name)) {
		if !o.IsStatic(id.ip) {
			return fail(api.CodeConflict, "overlay %s: static_subnet can't be without %s while that is held or reserved", o.Name, id.ip)
		}
	}
	return nil
}
