package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"

	"k8s.io/utils/third_party/forked/golang/btree"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
	"github.com/dcos/dcos-overlay/internal/network"
)

// degree is how many children a node of the tree has at most, halved: with 32
// a tree of 65,536 agents has three levels, and a change copies three nodes.
const degree = 32

// tree is the agents by IP. A clone costs nothing, and stays as it is while
// the other one changes.
type tree = btree.BTree[*standing]

func newTree() *tree {
	return btree.New(degree, func(a, b *standing) bool { return a.IP.Less(b.IP) })
}

// pivot stands for the agent at ip in a search of a tree.
func pivot(ip netip.Addr) *standing {
	return &standing{agentEntry: &agentEntry{Agent: &lease.Agent{IP: ip}}}
}

// setLine begins the line of a snapshot's event of an agent; the record and
// lineEnd follow.
const (
	setLine = `{"type":"set","revision":0,"agent":`
	lineEnd = "}\n"
)

// decodeAgent is the agent whose key is rest below agents/.
func decodeAgent(rest string, kv keyValue) (*agentEntry, error) {
	ip, err := netip.ParseAddr(rest)
	if err != nil {
		return nil, fmt.Errorf("etcd key %s: %w", kv.key, err)
	}
	return decodeEntry(ip, kv)
}

// decodeEntry is the agent at ip, as kv has it.
func decodeEntry(ip netip.Addr, kv keyValue) (*agentEntry, error) {
	a, err := decode[lease.Agent](kv)
	if err != nil {
		return nil, err
	}
	a.IP = ip
	return newEntry(&a, kv.rev)
}

// newEntry is a as it is stored at revision rev. It is marshalled here for
// all who will ask.
func newEntry(a *lease.Agent, rev int64) (*agentEntry, error) {
	record, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode agent %s: %w", a.IP, err)
	}
	return entryOf(a, record, rev), nil
}

// entryOf is a, which is record as JSON, as it is stored at revision rev.
func entryOf(a *lease.Agent, record []byte, rev int64) *agentEntry {
	line := make([]byte, 0, len(setLine)+len(record)+len(lineEnd))
	line = append(append(append(line, setLine...), record...), lineEnd...)
	return &agentEntry{Agent: a, rev: rev, line: line}
}

// record is the agent as JSON.
func (e *agentEntry) record() []byte { return e.line[len(setLine) : len(e.line)-len(lineEnd)] }

// shown is an agent's entry in DC/OS's state, as JSON, while the network is
// this one.
type shown struct {
	network *network.Network
	entry   []byte
}

// View is all agents as of one revision. It must not be changed.
type View struct {
	Epoch    string
	Network  *network.Network
	Revision int64
	// Changed is the revision since which no agent's record and nothing of
	// the network has changed: what other keys are is not in it.
	Changed int64

	agents *tree
}

// View returns what the index holds, once it has been loaded. It costs the same
// however many agents there are.
func (r *Registry) View(ctx context.Context) (View, error) {
	if err := r.loaded(ctx); err != nil {
		return View{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.idx
	return View{Epoch: x.epoch(), Network: x.net, Revision: x.rev, Changed: x.seenChange, agents: x.byIP.Clone()}, nil
}

// Records yields the records by IP, as JSON.
func (v View) Records() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for e := range ascend(v.agents, netip.Addr{}) {
			if !yield(e.record()) {
				return
			}
		}
	}
}

// Entries yields the agents by IP as DC/OS's state shows them, as JSON. Each is
// made when somebody asks for it first, and kept until it changes.
func (v View) Entries() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for e := range ascend(v.agents, netip.Addr{}) {
			entry, err := e.shownIn(v.Network)
			if !yield(entry, err) || err != nil {
				return
			}
		}
	}
}

func (e *agentEntry) shownIn(n *network.Network) ([]byte, error) {
	if s := e.shown.Load(); s != nil && s.network == n {
		return s.entry, nil
	}
	entry, err := json.Marshal(masterstate.Entry(e.Agent, n))
	if err != nil {
		return nil, fmt.Errorf("encode agent %s: %w", e.IP, err)
	}
	e.shown.Store(&shown{network: n, entry: entry})
	return entry, nil
}

// ascend yields t's agents in order, after the one at ip.
func ascend(t *tree, after netip.Addr) iter.Seq[*standing] {
	return func(yield func(*standing) bool) {
		t.AscendGreaterOrEqual(pivot(after), func(s *standing) bool { return s.IP == after || yield(s) })
	}
}
