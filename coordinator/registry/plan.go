package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/coordinator/allocator"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// plan is one transaction in the making: what must still be true, and what is
// then written.
//
// Within a transaction whatever keeps a unit known is written before what
// lets go of it, so that an index that follows never takes it for never used.
type plan struct {
	cmps  []condition
	ops   []clientv3.Op
	holds []hold
	// agent is the record as it is after the transaction, and record is that
	// as JSON.
	agent  *lease.Agent
	record []byte
	// writes says that record is among ops.
	writes bool
	// read is what a plan without writes reads instead: a transaction of
	// comparisons alone would be answered from a member's own, perhaps old,
	// state.
	read string
	// size is how much ops write, in bytes.
	size int
	err  error
}

// condition is a comparison: key is at revision rev, 0 for absent; or, where
// below is true, there is no key that begins with it; or, where quiet is, none
// of those that begin with it has changed since rev.
type condition struct {
	key   string
	rev   int64
	below bool
	quiet bool
}

func (c condition) cmp() clientv3.Cmp {
	if !c.quiet && !c.below {
		// What follows is clientv3.Compare of the key's revision, less the
		// copy that it makes of each comparison: a group of claims has hundreds.
		var out clientv3.Cmp
		cmp := out.GetCompare()
		cmp.Key, cmp.Target, cmp.Result = []byte(c.key), etcdserverpb.Compare_MOD, etcdserverpb.Compare_EQUAL
		cmp.TargetUnion = &etcdserverpb.Compare_ModRevision{ModRevision: c.rev}
		return out
	}
	if c.quiet {
		return clientv3.Compare(clientv3.ModRevision(c.key), "<", c.rev+1).WithPrefix()
	}
	// Etcd compares a range key by key, and one without keys as a key that was
	// never created.
	return clientv3.Compare(clientv3.CreateRevision(c.key), "=", 0).WithPrefix()
}

// shareable tells whether all that p depends on are single keys.
func (p *plan) shareable() bool {
	return !slices.ContainsFunc(p.cmps, func(c condition) bool { return c.below || c.quiet })
}

// hold is a unit kept from other calls until the transaction has ended.
type hold struct {
	pool *allocator.Pool
	unit netip.Prefix
}

func (h hold) drop() { h.pool.Drop(h.unit) }

// unchanged makes the plan hold only while key is at revision rev; 0 is absent.
func (p *plan) unchanged(key string, rev int64) {
	p.cmps = append(p.cmps, condition{key: key, rev: rev})
}

// put writes value as JSON, which it returns.
func (p *plan) put(key string, value any, opts ...clientv3.OpOption) []byte {
	b, err := json.Marshal(value)
	if err != nil {
		p.err = fmt.Errorf("encode %s: %w", key, err)
		return nil
	}
	p.size += len(key) + len(b)
	p.ops = append(p.ops, clientv3.OpPut(key, string(b), opts...))
	return b
}

// putIP writes ip, as put would: most of what a claim writes are addresses,
// and for these the way through reflection is long.
func (p *plan) putIP(key string, ip netip.Addr) {
	text := append(ip.AppendTo([]byte{'"'}), '"')
	p.size += len(key) + len(text)
	p.ops = append(p.ops, clientv3.OpPut(key, string(text)))
}

func (p *plan) remove(key string) { p.ops = append(p.ops, clientv3.OpDelete(key)) }

// noneBelow makes the plan hold only while there is no key below dir.
func (p *plan) noneBelow(dir string) { p.cmps = append(p.cmps, condition{key: dir, below: true}) }

// quietBelow makes the plan hold only while no key below dir has changed since
// revision rev. One that was removed counts for nothing.
func (p *plan) quietBelow(dir string, rev int64) {
	p.cmps = append(p.cmps, condition{key: dir, rev: rev, quiet: true})
}

// removeBelow removes all keys below dir.
func (p *plan) removeBelow(dir string) {
	p.ops = append(p.ops, clientv3.OpDelete(dir, clientv3.WithPrefix()))
}

// lease takes u, of which nobody may have become the owner meanwhile, for the
// agent at ip.
func (p *plan) lease(x *index, u unit, ip netip.Addr) {
	p.unchanged(u.key, 0)
	rest := x.released[u.restKey]
	p.unchanged(u.restKey, rest)
	p.putIP(u.key, ip)
	if rest != 0 {
		p.remove(u.restKey)
	}
}

// free lets units go to rest.
func (p *plan) free(us []unit, now time.Time) {
	for _, u := range us {
		if u.restKey != "" {
			p.put(u.restKey, storedTime{Since: now.UTC()})
		}
		p.remove(u.key)
	}
}

// forget removes the record of a and what is known of it, but none of its
// units. What is written beside is written by nobody who has not compared the
// record, so these keys need no comparison of their own.
func (p *plan) forget(a *lease.Agent) {
	p.remove(keyAgent(a.IP))
	p.forgetID(a)
	p.remove(keyAlive(a.IP))
	p.remove(keySilent(a.IP))
	p.remove(keyMesos(a.IP))
}

// forgetID removes the key of a's id, if it has one.
func (p *plan) forgetID(a *lease.Agent) {
	if a.ID != "" {
		p.remove(keyID(a.ID))
	}
}

// overlayUnits are those of one overlay.
func overlayUnits(o *lease.Overlay) []unit {
	var us []unit
	for _, s := range o.AllSubnets() {
		us = append(us, subnetUnit(o.Name, s))
	}
	for _, a := range o.Addresses {
		us = append(us, addressUnit(addressID{o.Name, a.IP}))
	}
	return us
}

// units are all that a holds.
func units(a *lease.Agent) []unit {
	var us []unit
	for _, vtep := range []netip.Prefix{a.VTEP.IP, a.VTEP.IP6} {
		if vtep.IsValid() {
			us = append(us, vtepUnit(vtep.Addr()))
		}
	}
	for i := range a.Overlays {
		us = append(us, overlayUnits(&a.Overlays[i])...)
	}
	return us
}

// change is the compare-and-swap loop: draft, called with the lock held, plans
// from the index; if the plan no longer holds in etcd the index catches up and
// the next attempt begins. It returns the plan that succeeded and the revision
// at which it is true. what names the operation for errors.
//
// A refusal by draft is as good as the index, which may not have heard yet of
// what another coordinator has acknowledged. So it counts only from an index
// that has all that was there when the call came.
func (r *Registry) change(ctx context.Context, what string, draft func(x *index) (*plan, error)) (*plan, int64, error) {
	if err := r.waitSynced(ctx); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", what, err)
	}
	current := false
	for range maxAttempts {
		p, err := r.prepare(ctx, draft)
		var refusal *api.Error
		if errors.As(err, &refusal) && !current {
			if err := r.catchUp(ctx); err != nil {
				return nil, 0, fmt.Errorf("%s: %w", what, err)
			}
			current = true
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		ok, rev, err := r.commit(ctx, p)
		if err != nil {
			// If it was written all the same, the index will say so; until
			// then the comparisons keep others from taking the units.
			r.drop(p.holds)
			return nil, 0, fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
		}
		if ok {
			if len(p.ops) > 0 {
				awaitIndex(ctx, r.settleAt(rev, p))
			}
			return p, rev, nil
		}
		r.lost(p.holds)
		if err := r.waitRevision(ctx, rev); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil, 0, fail(api.CodeUnavailable, "%s: what it depends on changed %d times while it was tried: try again", what, maxAttempts)
}

// catchUp waits until the index has all that etcd has now.
func (r *Registry) catchUp(ctx context.Context) error {
	rev, err := r.revision(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return r.waitRevision(ctx, rev)
}

// prepare calls draft with the lock held. While it finds nothing left to lease
// but what other calls of this registry have in hand, it waits for these to
// end: they may fail and leave something.
func (r *Registry) prepare(ctx context.Context, draft func(x *index) (*plan, error)) (*plan, error) {
	for {
		r.mu.Lock()
		p, err := draft(r.idx)
		if err == nil {
			err = p.err
		}
		if err != nil && p != nil {
			r.dropLocked(p.holds)
		}
		changed := r.changed
		r.mu.Unlock()
		var e *allocator.ExhaustedError
		if err == nil || !errors.As(err, &e) {
			return p, err
		}
		if e.Held == 0 {
			return nil, fail(api.CodeExhausted, "%v", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for other claims: %w: %w", ErrUnavailable, ctx.Err())
		}
	}
}

// commit tries p once.
func (r *Registry) commit(ctx context.Context, p *plan) (ok bool, rev int64, err error) {
	ops := p.ops
	if len(ops) == 0 {
		ops = []clientv3.Op{clientv3.OpGet(p.read, clientv3.WithKeysOnly())}
	}
	done := r.timed("write")
	cmps := make([]clientv3.Cmp, len(p.cmps))
	for i, c := range p.cmps {
		cmps[i] = c.cmp()
	}
	resp, err := r.client.Txn(ctx).If(cmps...).Then(ops...).Else(clientv3.OpGet(keyNetwork, clientv3.WithKeysOnly())).Commit()
	done(err)
	if err != nil {
		return false, 0, err
	}
	return resp.Succeeded, resp.Header.Revision, nil
}

// settleAt keeps p's holds until the index has seen revision rev; then it
// closes what it returns.
func (r *Registry) settleAt(rev int64, p *plan) <-chan struct{} {
	s := settled{rev: rev, holds: p.holds, indexed: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settling = append(r.settling, s)
	if rev <= r.idx.rev {
		r.settle()
		r.notify()
	}
	return s.indexed
}

// awaitIndex waits a little for the index to have what was written. It has
// happened, whether or not the index hears of it in time.
func awaitIndex(ctx context.Context, indexed <-chan struct{}) {
	timer := time.NewTimer(indexWait)
	defer timer.Stop()
	select {
	case <-indexed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// lost counts a race that was lost, and ends the plan's holds.
func (r *Registry) lost(holds []hold) {
	r.mu.Lock()
	r.conflicts++
	r.mu.Unlock()
	r.drop(holds)
}

func (r *Registry) drop(holds []hold) {
	if len(holds) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked(holds)
	r.notify()
}

func (r *Registry) dropLocked(holds []hold) {
	for _, h := range holds {
		h.drop()
	}
}
