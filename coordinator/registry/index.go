package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/allocator"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// index is the prefix in memory, as of one revision. It is fed keys in any
// order and may be fed one twice. Records in it are never changed in place, so
// that readers may keep them. It is pure.
type index struct {
	// rev is the revision up to which everything has been seen.
	rev int64

	base     network.Network
	baseRev  int64
	overlays map[string]overlayEntry
	// net is base with the overlays in order; made anew when either changes.
	// netJSON is that as JSON, from when it is asked for first.
	net     *network.Network
	netJSON []byte

	agents map[netip.Addr]*agentEntry
	// own are records that this coordinator is about to write.
	own map[netip.Addr]ownRecord
	// byIP has the same agents in order, with what is known of each, and tally
	// counts them: both are kept by stand.
	byIP  *tree
	tally tally
	// seenChange is the revision of the last change of an agent's record or
	// of the network; after a load, which does not tell, that of the load.
	seenChange int64
	ids        map[string]idEntry
	alive      map[netip.Addr]aliveEntry
	silent     map[netip.Addr]silentEntry
	mesos      map[netip.Addr]mesosEntry
	pools      map[poolID]*allocator.Pool
	released   map[string]int64 // key below released/ to its revision
	// addresses are the fixed ones that are held, reserved those that are kept
	// for who carries a label.
	addresses map[addressID]addressEntry
	reserved  map[addressID]reservedEntry
	// deleted are overlays that were, and since when they are not.
	deleted map[string]time.Time
	// cluster is etcd's own id, and store what was drawn for this prefix.
	cluster uint64
	store   string
}

type overlayEntry struct {
	storedOverlay
	rev int64
}

type agentEntry struct {
	*lease.Agent
	rev int64
	// line is the agent as an event of a snapshot, made once for all readers.
	line []byte
	// shown is the agent in DC/OS's state, from when it is asked for first.
	shown atomic.Pointer[shown]
}

type idEntry struct {
	ip  netip.Addr
	rev int64
}

type aliveEntry struct {
	value string
	lease int64
}

type silentEntry struct {
	since time.Time
	rev   int64
}

type mesosEntry struct {
	storedMesos
	rev int64
}

// epoch names the store that revisions are of. Etcd's id changes when a member
// is restored from a backup, and the drawn one when etcd was wiped.
func (x *index) epoch() string { return fmt.Sprintf("%x-%s", x.cluster, x.store) }

func newIndex() *index {
	return &index{
		overlays: map[string]overlayEntry{},
		net:      &network.Network{},
		agents:   map[netip.Addr]*agentEntry{},
		own:      map[netip.Addr]ownRecord{},
		byIP:     newTree(),
		tally:    newTally(),
		ids:      map[string]idEntry{},
		alive:    map[netip.Addr]aliveEntry{},
		silent:   map[netip.Addr]silentEntry{},
		mesos:    map[netip.Addr]mesosEntry{},
		deleted:  map[string]time.Time{},
		pools:    map[poolID]*allocator.Pool{},
		released: map[string]int64{},

		addresses: map[addressID]addressEntry{},
		reserved:  map[addressID]reservedEntry{},
	}
}

// keyValue is what a key holds since revision rev. A nil value means that the
// key is gone.
type keyValue struct {
	key   string
	value []byte
	rev   int64
	lease int64
}

// apply takes one key in and returns the event that it makes, if any: the
// event of a network carries no network yet, because further keys of the same
// revision may belong to it. An error means that the key does not hold what it
// should, and that it was passed over.
func (x *index) apply(kv keyValue) (*api.Event, error) {
	dir, rest := splitKey(kv.key)
	switch dir {
	case keyNetwork:
		return x.applyNetwork(kv)
	case dirOverlays:
		return x.applyOverlay(rest, kv)
	case dirAgents:
		return x.applyAgent(rest, kv)
	case dirIDs:
		return nil, x.applyID(rest, kv)
	case dirAlive:
		return nil, x.applyAlive(rest, kv)
	case dirSilent:
		return nil, x.applySilent(rest, kv)
	case dirMesos:
		return nil, x.applyMesos(rest, kv)
	case dirDeleted:
		return nil, x.applyDeleted(rest, kv)
	case keyEpoch:
		store, err := decode[string](kv)
		x.store = store
		return nil, err
	case dirVTEPs, dirSubnets:
		return nil, x.applyUsed(dir == dirVTEPs, rest, kv)
	case dirReleasedVTEPs, dirReleasedSubnets:
		return nil, x.applyReleased(dir == dirReleasedVTEPs, rest, kv)
	case dirAddresses:
		return nil, x.applyAddress(rest, kv)
	case dirReservations:
		return nil, x.applyReservation(rest, kv)
	}
	// A key of a later version: not ours to judge.
	return nil, nil
}

func splitKey(key string) (dir, rest string) {
	if key == keyNetwork || key == keyEpoch {
		return key, ""
	}
	for _, dir := range directories() {
		if rest, ok := strings.CutPrefix(key, dir); ok {
			return dir, rest
		}
	}
	return "", ""
}

func decode[T any](kv keyValue) (T, error) {
	var v T
	if kv.value == nil {
		return v, nil
	}
	if err := json.Unmarshal(kv.value, &v); err != nil {
		return v, fmt.Errorf("etcd key %s: %w", kv.key, err)
	}
	return v, nil
}

// decodeIP is decode for what putIP writes, less the way through reflection
// where the value is written as putIP does.
func decodeIP(kv keyValue) (netip.Addr, error) {
	text, opened := bytes.CutPrefix(kv.value, []byte{'"'})
	text, closed := bytes.CutSuffix(text, []byte{'"'})
	if opened && closed {
		if ip, err := netip.ParseAddr(string(text)); err == nil {
			return ip, nil
		}
	}
	return decode[netip.Addr](kv)
}

func (x *index) applyNetwork(kv keyValue) (*api.Event, error) {
	n, err := decode[network.Network](kv)
	if err != nil {
		return nil, err
	}
	x.base, x.baseRev = n, kv.rev
	if kv.value == nil {
		x.baseRev = 0
	}
	x.seenChange = kv.rev
	x.pool(poolID{}).HostsOf(n.VTEPSubnet)
	x.pool(poolID{v6: true}).HostsOf(n.VTEPSubnet6)
	x.assemble()
	return &api.Event{Type: api.EventNetwork}, nil
}

func (x *index) applyOverlay(name string, kv keyValue) (*api.Event, error) {
	o, err := decode[storedOverlay](kv)
	if err != nil {
		return nil, err
	}
	if kv.value == nil {
		delete(x.overlays, name)
	} else {
		o.Name = name
		x.overlays[name] = overlayEntry{storedOverlay: o, rev: kv.rev}
	}
	x.seenChange = kv.rev
	x.pool(poolID{overlay: name}).CutInto(o.Subnet, o.Prefix, o.StaticSubnet)
	x.pool(poolID{overlay: name, v6: true}).CutInto(o.Subnet6, o.Prefix6, o.StaticSubnet6)
	x.assemble()
	return &api.Event{Type: api.EventNetwork}, nil
}

func (x *index) assemble() {
	entries := make([]overlayEntry, 0, len(x.overlays))
	for _, o := range x.overlays {
		entries = append(entries, o)
	}
	slices.SortFunc(entries, func(a, b overlayEntry) int {
		if a.Order != b.Order {
			return a.Order - b.Order
		}
		return strings.Compare(a.Name, b.Name)
	})
	n := x.base
	n.Overlays = make([]network.Overlay, 0, len(entries))
	for _, o := range entries {
		n.Overlays = append(n.Overlays, o.Overlay)
	}
	x.net, x.netJSON = &n, nil
}

func (x *index) applyAgent(rest string, kv keyValue) (*api.Event, error) {
	ip, err := netip.ParseAddr(rest)
	if err != nil {
		return nil, fmt.Errorf("etcd key %s: %w", kv.key, err)
	}
	if kv.value == nil {
		e := x.agents[ip]
		if e == nil {
			return nil, nil
		}
		delete(x.agents, ip)
		x.stand(ip)
		x.seenChange = kv.rev
		return &api.Event{Type: api.EventDelete, IP: ip}, nil
	}
	e, err := x.entry(ip, kv)
	if err != nil {
		return nil, err
	}
	x.agents[ip] = e
	x.stand(ip)
	x.seenChange = kv.rev
	return &api.Event{Type: api.EventSet, Agent: e.Agent}, nil
}

// entry is the agent at ip, as kv has it.
func (x *index) entry(ip netip.Addr, kv keyValue) (*agentEntry, error) {
	own, ok := x.own[ip]
	delete(x.own, ip)
	if ok && bytes.Equal(own.record, kv.value) {
		return entryOf(own.agent, own.record, kv.rev), nil
	}
	return decodeEntry(ip, kv)
}

func (x *index) applyID(id string, kv keyValue) error {
	ip, err := decodeIP(kv)
	if err != nil {
		return err
	}
	if kv.value == nil {
		delete(x.ids, id)
		return nil
	}
	x.ids[id] = idEntry{ip: ip, rev: kv.rev}
	return nil
}

func (x *index) applyAlive(rest string, kv keyValue) error {
	ip, err := netip.ParseAddr(rest)
	if err != nil {
		return fmt.Errorf("etcd key %s: %w", kv.key, err)
	}
	defer x.stand(ip)
	if kv.value == nil {
		delete(x.alive, ip)
		return nil
	}
	x.alive[ip] = aliveEntry{value: string(kv.value), lease: kv.lease}
	return nil
}

func (x *index) applySilent(rest string, kv keyValue) error {
	ip, err := netip.ParseAddr(rest)
	if err != nil {
		return fmt.Errorf("etcd key %s: %w", kv.key, err)
	}
	defer x.stand(ip)
	if kv.value == nil {
		delete(x.silent, ip)
		return nil
	}
	s, err := decode[storedTime](kv)
	if err != nil {
		return err
	}
	x.silent[ip] = silentEntry{since: s.Since, rev: kv.rev}
	return nil
}

func (x *index) applyMesos(rest string, kv keyValue) error {
	ip, err := netip.ParseAddr(rest)
	if err != nil {
		return fmt.Errorf("etcd key %s: %w", kv.key, err)
	}
	defer x.stand(ip)
	if kv.value == nil {
		delete(x.mesos, ip)
		return nil
	}
	m, err := decode[storedMesos](kv)
	if err != nil {
		return err
	}
	x.mesos[ip] = mesosEntry{storedMesos: m, rev: kv.rev}
	return nil
}

func (x *index) applyDeleted(name string, kv keyValue) error {
	if kv.value == nil {
		delete(x.deleted, name)
		return nil
	}
	// One that can't be read still says that the overlay was deleted.
	s, err := decode[storedTime](kv)
	x.deleted[name] = s.Since
	return err
}

func (x *index) applyUsed(vtep bool, rest string, kv keyValue) error {
	pool, prefix, ok := parseUnit(vtep, rest)
	if !ok {
		return fmt.Errorf("etcd key %s: not an address or subnet", kv.key)
	}
	if kv.value == nil {
		x.pool(pool).Unuse(prefix)
	} else {
		x.pool(pool).Use(prefix)
	}
	return nil
}

func (x *index) applyReleased(vtep bool, rest string, kv keyValue) error {
	pool, prefix, ok := parseUnit(vtep, rest)
	if !ok {
		return fmt.Errorf("etcd key %s: not an address or subnet", kv.key)
	}
	if kv.value == nil {
		delete(x.released, kv.key)
		x.pool(pool).Unrelease(prefix)
		return nil
	}
	// A value that can't be read rests since the beginning of time: the key
	// still counts for the comparison of whoever takes the unit.
	x.released[kv.key] = kv.rev
	r, err := decode[storedTime](kv)
	x.pool(pool).Release(prefix, r.Since)
	return err
}

// pool returns the pool called id, making one without a shape if there is
// none: keys of subnets may come before the key of their overlay.
func (x *index) pool(id poolID) *allocator.Pool {
	p := x.pools[id]
	if p == nil {
		p = allocator.New()
		x.pools[id] = p
	}
	return p
}

// recordOf is a as JSON if the index holds it; else nil.
func (x *index) recordOf(a *lease.Agent) []byte {
	if e := x.agents[a.IP]; e != nil && e.Agent == a {
		return e.record()
	}
	return nil
}

// place is where the overlay called name stands among the others.
func (x *index) place(name string) int {
	if i := slices.IndexFunc(x.net.Overlays, func(o network.Overlay) bool { return o.Name == name }); i >= 0 {
		return i
	}
	return len(x.net.Overlays)
}

// holders are the agents that hold subnets of the overlay called name, in order.
func (x *index) holders(name string) []*agentEntry {
	var out []*agentEntry
	for _, a := range x.agents {
		if a.Overlay(name) != nil {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *agentEntry) int { return a.IP.Compare(b.IP) })
	return out
}

// agentRev is the revision of the record of the agent at ip; 0 when absent.
func (x *index) agentRev(ip netip.Addr) int64 {
	if a := x.agents[ip]; a != nil {
		return a.rev
	}
	return 0
}

// changes are the events that lead from old to x: what a reader that knows old
// has missed.
func (x *index) changes(old *index) []api.Event {
	var events []api.Event
	if x.configurationDiffers(old) {
		events = append(events, api.Event{Type: api.EventNetwork})
	}
	// All that anybody lost goes before all that somebody got: a subnet that
	// went from one to the other is never at both.
	for ip, a := range old.agents {
		if now := x.agents[ip]; now == nil || lost(a.Agent, now.Agent) {
			events = append(events, api.Event{Type: api.EventDelete, IP: ip})
		}
	}
	for ip, a := range x.agents {
		if old.agentRev(ip) != a.rev {
			events = append(events, api.Event{Type: api.EventSet, Agent: a.Agent})
		}
	}
	return events
}

// lost tells whether before has something that now has not.
func lost(before, now *lease.Agent) bool {
	kept := units(now)
	return slices.ContainsFunc(units(before), func(u unit) bool { return !slices.Contains(kept, u) })
}

func (x *index) configurationDiffers(old *index) bool {
	if x.baseRev != old.baseRev || len(x.overlays) != len(old.overlays) {
		return true
	}
	for name, o := range x.overlays {
		if old.overlays[name].rev != o.rev {
			return true
		}
	}
	return false
}
