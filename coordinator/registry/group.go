package registry

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// DefaultMaxTxnOps is how many operations, and comparisons, an etcd takes
	// in one transaction unless its --max-txn-ops says otherwise.
	DefaultMaxTxnOps = 128
	// maxGroupBytes bounds what a group writes. Etcd takes 1.5 MB unless its
	// --max-request-bytes says otherwise.
	maxGroupBytes = 512 << 10
	// groupTimeout bounds a group whose members have no deadline.
	groupTimeout = 10 * time.Second
	// defaultPatience is how long a group counts as under way. One that takes
	// longer has met an etcd that hangs, and may be the only one to.
	defaultPatience = 100 * time.Millisecond
	// groupsAtOnce is how many groups are under way at once: while etcd writes
	// one to disk it can take in another. A second one goes only with
	// worthwhile members, lest calls that come thick and fast go in many small
	// groups: each costs a write to disk, which takes as long as the rest of
	// the work for 30 claims.
	groupsAtOnce = 2
	worthwhile   = 32
)

// committer commits the plans of several calls in one transaction. While one
// is under way the calls that come wait, and then go together: under load an
// etcd's cost of a transaction is shared, and a call that comes alone waits
// for nobody.
type committer struct {
	mu      sync.Mutex
	waiting []*member
	// underWay counts the groups that etcd has not answered yet, but those
	// that try its callers' patience.
	underWay int
	// patience is how long a group counts as under way.
	patience time.Duration
}

// member is one call's part in a group.
type member struct {
	ctx   context.Context
	draft func(x *index) (*plan, error)
	// left says that nobody waits for the verdict any more; Registry.mu.
	left bool
	// early is the verdict of one that is committed, while the index does not
	// have it yet; Registry.mu.
	early   *verdict
	verdict chan verdict
}

// verdict is what became of a call in a group.
type verdict struct {
	outcome outcome
	plan    *plan
	// rev is the revision at which the plan is true, or has lost.
	rev int64
	err error
}

type outcome int

const (
	// goesAlone: the call has to be made by itself. Nothing was written for it.
	goesAlone outcome = iota
	// isCommitted: the plan is true.
	isCommitted
	// isLost: something that the group depends on has changed before rev.
	isLost
	// hasFailed: whether the plan was written is not known.
	hasFailed
)

// share has draft's plan committed together with those of other calls, and
// waits for that until ctx ends. draft is called with the lock held.
func (r *Registry) share(ctx context.Context, draft func(x *index) (*plan, error)) verdict {
	m := &member{ctx: ctx, draft: draft, verdict: make(chan verdict, 1)}
	g := &r.group
	g.mu.Lock()
	g.waiting = append(g.waiting, m)
	r.launch()
	g.mu.Unlock()
	select {
	case v := <-m.verdict:
		return v
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		m.left = true
		if m.early != nil {
			return *m.early
		}
		return verdict{outcome: hasFailed, err: ctx.Err()}
	}
}

// launch starts a group of those that wait, if it is time to. r.group.mu is
// held.
func (r *Registry) launch() {
	g := &r.group
	if len(g.waiting) == 0 || g.underWay >= groupsAtOnce || g.underWay > 0 && len(g.waiting) < worthwhile {
		return
	}
	g.underWay++
	go r.runGroup()
}

// runGroup commits as many as go together of those that wait.
func (r *Registry) runGroup() {
	g := &r.group
	// Calls that have come, and wait for nothing but a processor, are in time.
	runtime.Gosched()
	g.mu.Lock()
	members := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	t, rest := r.assemble(members)
	if len(rest) > 0 {
		g.mu.Lock()
		g.waiting = append(rest, g.waiting...)
		r.launch()
		g.mu.Unlock()
	}
	over := sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.underWay--
		r.launch()
	})
	defer over()
	if len(t.members) > 0 {
		defer time.AfterFunc(g.patience, over).Stop()
		r.commitGroup(t, over)
	}
}

// together is one group: plans none of which depends on another.
type together struct {
	members  []*member
	plans    []*plan
	cmps     map[string]int64
	written  map[string]bool
	ops      int
	size     int
	deadline time.Time
	// later are calls that depend on the group: they can't be judged before
	// the index has it.
	later []*member
}

// assemble drafts the plans of members and puts together those that fit; the
// rest is for the next group.
func (r *Registry) assemble(members []*member) (t *together, rest []*member) {
	t = &together{cmps: make(map[string]int64, newCmps*len(members)), written: make(map[string]bool, newOps*len(members))}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { t.expect(r.idx) }()
	for i, m := range members {
		if m.left || m.ctx.Err() != nil {
			continue
		}
		p, err := m.draft(r.idx)
		if err == nil {
			err = p.err
		}
		if err != nil || !p.shareable() {
			// What refuses it may be another member's hold, or the index may
			// be behind: the call finds out.
			if p != nil {
				r.dropLocked(p.holds)
			}
			m.verdict <- verdict{outcome: goesAlone}
			continue
		}
		switch {
		case t.depends(p):
			r.dropLocked(p.holds)
			t.later = append(t.later, m)
		case len(t.plans) > 0 && !t.fits(p, r.opts.MaxTxnOps):
			r.dropLocked(p.holds)
			return t, members[i:]
		default:
			t.add(m, p)
		}
	}
	return t, nil
}

// depends tells whether p writes what a plan of t writes or compares, or the
// other way round.
func (t *together) depends(p *plan) bool {
	for _, c := range p.cmps {
		if rev, known := t.cmps[c.key]; t.written[c.key] || known && rev != c.rev {
			return true
		}
	}
	for _, op := range p.ops {
		key := op.KeyBytes()
		if _, compared := t.cmps[string(key)]; compared || t.written[string(key)] {
			return true
		}
	}
	return false
}

func (t *together) fits(p *plan, most int) bool {
	added := 0
	for _, c := range p.cmps {
		if _, known := t.cmps[c.key]; !known {
			added++
		}
	}
	return len(t.cmps)+added <= most && t.ops+len(p.ops) <= most && t.size+p.size <= maxGroupBytes
}

func (t *together) add(m *member, p *plan) {
	t.members = append(t.members, m)
	t.plans = append(t.plans, p)
	t.size += p.size
	t.ops += len(p.ops)
	for _, c := range p.cmps {
		t.cmps[c.key] = c.rev
	}
	for _, op := range p.ops {
		t.written[string(op.KeyBytes())] = true
	}
	deadline, ok := m.ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(groupTimeout)
	}
	if deadline.After(t.deadline) {
		t.deadline = deadline
	}
}

// whole is the plan of all members.
func (t *together) whole() *plan {
	p := &plan{read: t.plans[0].read, cmps: make([]condition, 0, len(t.cmps)), ops: make([]clientv3.Op, 0, t.ops)}
	for key, rev := range t.cmps {
		p.cmps = append(p.cmps, condition{key: key, rev: rev})
	}
	for _, part := range t.plans {
		p.ops = append(p.ops, part.ops...)
		p.holds = append(p.holds, part.holds...)
	}
	return p
}

// commitGroup commits a group and tells its members what became of it. It has
// its own deadline, the last of its members': one that leaves takes nothing
// from the others. over is called when etcd has answered.
func (r *Registry) commitGroup(t *together, over func()) {
	ctx, cancel := context.WithDeadline(context.Background(), t.deadline)
	defer cancel()
	p := t.whole()
	ok, rev, err := r.commit(ctx, p)
	over()
	v := verdict{rev: rev}
	if err != nil || !ok {
		r.mu.Lock()
		t.forgo(r.idx)
		r.mu.Unlock()
	}
	switch {
	case refusedWhole(err):
		r.drop(p.holds)
		v = verdict{outcome: goesAlone}
	case err != nil:
		// If it was written all the same, the index will say so; until then
		// the comparisons keep others from taking the units.
		r.drop(p.holds)
		v = verdict{outcome: hasFailed, err: err}
	case ok:
		v.outcome = isCommitted
		r.settleGroup(ctx, t, p, v)
	default:
		// Whose comparison failed is not known: each tries by itself.
		r.lost(p.holds)
		v.outcome = isLost
	}
	for i, m := range t.members {
		v.plan = t.plans[i]
		m.verdict <- v
	}
	after := verdict{outcome: goesAlone}
	if v.outcome == isCommitted || v.outcome == isLost {
		after = verdict{outcome: isLost, rev: rev}
	}
	for _, m := range t.later {
		m.verdict <- after
	}
}

// settleGroup waits until the index has what t's plan p wrote, once for all
// members. Those that can't wait as long learn that they are committed.
func (r *Registry) settleGroup(ctx context.Context, t *together, p *plan, v verdict) {
	r.mu.Lock()
	for i, m := range t.members {
		early := v
		early.plan = t.plans[i]
		m.early = &early
	}
	r.mu.Unlock()
	indexed := r.settleAt(v.rev, p)
	if len(p.ops) > 0 {
		awaitIndex(ctx, indexed)
	}
}

// refusedWhole tells whether etcd has refused a transaction for what it is,
// and done nothing of it: another part of it may be the cause than that which
// matters to a member.
func refusedWhole(err error) bool {
	for _, refusal := range []error{
		rpctypes.ErrLeaseNotFound, rpctypes.ErrTooManyOps, rpctypes.ErrDuplicateKey, rpctypes.ErrRequestTooLarge,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// changeShared is change for a plan about one agent: its first attempt is made
// together with those of other calls. When that is lost, or etcd refuses it,
// the call goes on by itself.
func (r *Registry) changeShared(ctx context.Context, what string, draft func(x *index) (*plan, error)) (*plan, int64, error) {
	if err := r.waitSynced(ctx); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", what, err)
	}
	v := r.share(ctx, draft)
	switch v.outcome {
	case isCommitted:
		return v.plan, v.rev, nil
	case hasFailed:
		return nil, 0, fmt.Errorf("%s: %w: %w", what, ErrUnavailable, v.err)
	case isLost:
		if err := r.waitRevision(ctx, v.rev); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", what, err)
		}
	}
	return r.change(ctx, what, draft)
}
