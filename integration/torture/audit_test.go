package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// prefix is where the coordinators keep everything in etcd.
const prefix = "/dcos-overlay/v1/"

// change is what one transaction did: keys below prefix with their new values,
// nil for those that it deleted.
type change struct {
	revision int64
	keys     map[string][]byte
}

// readHistory reads all that ever happened below prefix up to the present
// revision. Nothing may have been compacted.
func readHistory(ctx context.Context, client *clientv3.Client) ([]change, error) {
	now, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("read etcd's revision: %w", err)
	}
	var last int64
	for _, kv := range now.Kvs {
		last = max(last, kv.ModRevision)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var out []change
	for resp := range client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := resp.Err(); err != nil {
			return nil, fmt.Errorf("read etcd's history: %w", err)
		}
		for _, e := range resp.Events {
			if len(out) == 0 || out[len(out)-1].revision != e.Kv.ModRevision {
				out = append(out, change{revision: e.Kv.ModRevision, keys: map[string][]byte{}})
			}
			var value []byte
			if e.Type == clientv3.EventTypePut {
				value = e.Kv.Value
			}
			out[len(out)-1].keys[strings.TrimPrefix(string(e.Kv.Key), prefix)] = value
		}
		// A message holds whole transactions.
		if len(out) > 0 && out[len(out)-1].revision >= last {
			return out, nil
		}
	}
	return nil, fmt.Errorf("read etcd's history: the watch ended: %w", ctx.Err())
}

// unitsOf are the keys that make sure that what a holds is nobody else's.
func unitsOf(a *lease.Agent) []string {
	var out []string
	for _, vtep := range []netip.Prefix{a.VTEP.IP, a.VTEP.IP6} {
		if vtep.IsValid() {
			out = append(out, "vteps/"+vtep.Addr().String())
		}
	}
	for _, o := range a.Overlays {
		for _, s := range o.AllSubnets() {
			out = append(out, "subnets/"+o.Name+"/"+s.String())
		}
	}
	return out
}

// auditor plays etcd's history again and looks at every revision.
type auditor struct {
	problems []string

	agents map[netip.Addr]*lease.Agent
	owners map[string]netip.Addr
	ids    map[string]netip.Addr
	alive  map[netip.Addr]bool
	rests  map[string]time.Time
	// possessions are what each id held at the last revision.
	possessions map[string]map[string]bool
	// removals counts how often each id's lease ended.
	removals map[string]int
	// rested is when what each revision leased anew had been released.
	rested map[int64][]time.Time
}

func newAuditor() *auditor {
	return &auditor{
		agents: map[netip.Addr]*lease.Agent{}, owners: map[string]netip.Addr{}, ids: map[string]netip.Addr{},
		alive: map[netip.Addr]bool{}, rests: map[string]time.Time{}, possessions: map[string]map[string]bool{},
		removals: map[string]int{}, rested: map[int64][]time.Time{},
	}
}

func (a *auditor) problem(format string, args ...any) {
	a.problems = append(a.problems, fmt.Sprintf(format, args...))
}

// play takes in one transaction and judges what is then true.
func (a *auditor) play(c change) {
	for key, value := range c.keys {
		if since, ok := a.rests[key]; ok && value != nil {
			a.rested[c.revision] = append(a.rested[c.revision], since)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.keys)) {
		if err := a.set(key, c.keys[key]); err != nil {
			a.problem("revision %d: %s: %v", c.revision, key, err)
		}
	}
	a.judge(c.revision)
}

func (a *auditor) set(key string, value []byte) error {
	dir, rest, _ := strings.Cut(key, "/")
	switch dir {
	case "agents", "alive":
		ip, err := netip.ParseAddr(rest)
		if err != nil {
			return err
		}
		if dir == "alive" {
			return assign(a.alive, ip, value, func([]byte, *bool) error { return nil })
		}
		return assign(a.agents, ip, value, func(b []byte, v **lease.Agent) error { return json.Unmarshal(b, v) })
	case "ids":
		return assign(a.ids, rest, value, decode[netip.Addr])
	case "vteps", "subnets":
		return assign(a.owners, key, value, decode[netip.Addr])
	case "released":
		return assign(a.rests, rest, value, func(b []byte, v *time.Time) error {
			var stored struct{ Since time.Time }
			err := json.Unmarshal(b, &stored)
			*v = stored.Since
			return err
		})
	}
	return nil
}

func decode[V any](b []byte, v *V) error { return json.Unmarshal(b, v) }

func assign[K comparable, V any](m map[K]V, key K, value []byte, decode func([]byte, *V) error) error {
	delete(m, key)
	if value == nil {
		return nil
	}
	var v V
	err := decode(value, &v)
	m[key] = v
	return err
}

// judge compares the records with the keys that make them unique.
func (a *auditor) judge(rev int64) {
	macs := map[network.MAC]netip.Addr{}
	held := map[string]netip.Addr{}
	possessions := map[string]map[string]bool{}
	for ip, agent := range a.agents {
		if agent.IP != ip {
			a.problem("revision %d: the record of %s says that it is of %s", rev, ip, agent.IP)
		}
		if at, ok := a.ids[agent.ID]; !ok || at != ip {
			a.problem("revision %d: agent %s has the id %s, which is that of %s", rev, ip, agent.ID, at)
		}
		if other, ok := macs[agent.VTEP.MAC]; ok {
			a.problem("revision %d: %s and %s have the same MAC %s", rev, ip, other, agent.VTEP.MAC)
		}
		macs[agent.VTEP.MAC] = ip
		possessions[agent.ID] = map[string]bool{}
		for _, u := range unitsOf(agent) {
			if other, ok := held[u]; ok {
				a.problem("revision %d: %s is in the records of %s and %s", rev, u, ip, other)
			}
			held[u] = ip
			possessions[agent.ID][u] = true
			if owner, ok := a.owners[u]; !ok || owner != ip {
				a.problem("revision %d: %s is in the record of %s, and its key says %s", rev, u, ip, owner)
			}
			if _, ok := a.rests[u]; ok {
				a.problem("revision %d: %s of %s rests as released", rev, u, ip)
			}
		}
	}
	for u, owner := range a.owners {
		if held[u] != owner {
			a.problem("revision %d: the key of %s says %s, whose record has it not", rev, u, owner)
		}
	}
	for id, at := range a.ids {
		if agent := a.agents[at]; agent == nil || agent.ID != id {
			a.problem("revision %d: the id %s is that of %s, whose record has it not", rev, id, at)
		}
	}
	for ip := range a.alive {
		if a.agents[ip] == nil {
			a.problem("revision %d: %s is alive and has no record", rev, ip)
		}
	}
	for id, before := range a.possessions {
		now, ok := possessions[id]
		if !ok {
			a.removals[id]++
			continue
		}
		for u := range before {
			if !now[u] {
				a.problem("revision %d: %s lost %s, though nobody released its lease", rev, id, u)
			}
		}
	}
	a.possessions = possessions
}

// audit judges the whole history, and what clients were told by it: at the
// revision of each answer the record was as the answer says, what had rested
// had done so for the quarantine, and no lease ended that nobody asked to end.
func audit(history []change, ops []op) *auditor {
	a := newAuditor()
	var claims []op
	ends := map[string]int{}
	for _, o := range ops {
		switch {
		case o.kind == opClaim && o.outcome == done:
			claims = append(claims, o)
		case (o.kind == opRelease || o.kind == opDelete) && o.outcome != refused:
			ends[idOf(o.agent)]++
		}
	}
	slices.SortStableFunc(claims, func(a, b op) int { return int(a.revision - b.revision) })
	for i, c := range history {
		a.play(c)
		for len(claims) > 0 && (i == len(history)-1 || claims[0].revision < history[i+1].revision) {
			a.answered(claims[0])
			claims = claims[1:]
		}
	}
	for id, n := range a.removals {
		if n > ends[id] {
			a.problem("the lease of %s ended %d times, and was asked to end %d times", id, n, ends[id])
		}
	}
	return a
}

func (a *auditor) answered(o op) {
	if now := a.agents[o.ip]; !reflect.DeepEqual(now, o.record) {
		a.problem("revision %d: agent %s was told %+v, and its record is %+v", o.revision, o.ip, o.record, now)
	}
	for _, since := range a.rested[o.revision] {
		if rest := o.ret.Sub(since); rest < quarantine {
			a.problem("revision %d: what %s got had rested for %s only", o.revision, o.ip, rest)
		}
	}
}

// chapter makes changes of several keys each, a revision apart.
func chapter(changes ...map[string]any) []change {
	var out []change
	for i, c := range changes {
		next := change{revision: int64(i + 1), keys: map[string][]byte{}}
		for key, v := range c {
			next.keys[key] = nil
			if v != nil {
				next.keys[key], _ = json.Marshal(v)
			}
		}
		out = append(out, next)
	}
	return out
}

// claimed are the keys that make n's record at ip, and with gone those that
// end it.
func claimed(ip netip.Addr, id string, n byte) map[string]any {
	a := record(n, n)
	a.ID, a.IP = id, ip
	keys := map[string]any{"agents/" + ip.String(): a, "ids/" + id: ip}
	for _, u := range unitsOf(a) {
		keys[u] = ip
	}
	return keys
}

func gone(keys map[string]any, at time.Time) map[string]any {
	out := map[string]any{}
	for key := range keys {
		out[key] = nil
		if strings.HasPrefix(key, "vteps/") || strings.HasPrefix(key, "subnets/") {
			out["released/"+key] = map[string]any{"since": at}
		}
	}
	return out
}

func with(keys map[string]any, key string, value any) map[string]any {
	out := maps.Clone(keys)
	out[key] = value
	return out
}

// TestAudit: an auditor that finds nothing anywhere proves nothing.
func TestAudit(t *testing.T) {
	one, two := agentIPs(0)[0], agentIPs(1)[0]
	first, second := claimed(one, "agent0", 1), claimed(two, "agent1", 2)
	begin := time.Unix(1_000_000, 0)
	released := gone(first, begin)
	// Leased again: what rested does no longer.
	again := claimed(two, "agent1", 1)
	for u := range released {
		if strings.HasPrefix(u, "released/") {
			again[u] = nil
		}
	}
	told := func(n byte, rev int64, ret time.Time) op {
		a := record(n, n)
		a.ID, a.IP = "agent1", two
		return op{kind: opClaim, agent: 1, ip: two, outcome: done, record: a, revision: rev, ret: ret}
	}
	end := op{kind: opRelease, agent: 0, outcome: done}
	for name, tt := range map[string]struct {
		history []change
		ops     []op
		want    string
	}{
		"two leases":     {chapter(first, second), []op{told(2, 2, begin)}, ""},
		"a second owner": {chapter(first, released, again), []op{end, told(1, 3, begin.Add(quarantine))}, ""},
		"too short a rest": {chapter(first, released, again), []op{end, told(1, 3, begin.Add(quarantine-1))},
			"had rested for"},
		"a release that nobody asked for": {chapter(first, released), nil, "was asked to end 0 times"},
		"two records of one thing":        {chapter(first, claimed(two, "agent1", 1)), nil, "is in the records of"},
		"a key of another":                {chapter(with(first, "vteps/44.128.0.1", two)), nil, "its key says"},
		"a key without a record":          {chapter(with(first, "vteps/44.128.0.9", one)), nil, "whose record has it not"},
		"a record without a key":          {chapter(first, map[string]any{"subnets/red/9.0.1.0/24": nil}), nil, "its key says invalid IP"},
		"an id that leads nowhere":        {chapter(with(first, "ids/agent7", one)), nil, "the id agent7"},
		"a thing owned and resting":       {chapter(with(first, "released/vteps/44.128.0.1", map[string]any{"since": begin})), nil, "rests as released"},
		"alive without a record":          {chapter(with(first, "alive/"+two.String(), 1)), nil, "is alive"},
		"a lease that changes":            {chapter(first, claimed(one, "agent0", 2)), nil, "lost vteps/44.128.0.1"},
		"an answer that is not true":      {chapter(first, second), []op{told(3, 2, begin)}, "was told"},
		"an answer before it was true":    {chapter(first, second), []op{told(2, 1, begin)}, "was told"},
		"a key that can't be read":        {chapter(with(first, "vteps/44.128.0.1", "nonsense")), nil, "nonsense"},
	} {
		problems := audit(tt.history, tt.ops).problems
		if tt.want == "" && len(problems) > 0 || tt.want != "" && !strings.Contains(strings.Join(problems, "\n"), tt.want) {
			t.Errorf("%s: got %q, want %q", name, problems, tt.want)
		}
	}
}
