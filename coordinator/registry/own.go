package registry

import "github.com/dcos/dcos-overlay/internal/lease"

// ownRecord is an agent's record that a group is about to write. When the
// watch brings the same bytes the index takes the agent as it is, and neither
// decodes nor encodes it again. It decides nothing: other bytes are read as
// those of another coordinator are.
type ownRecord struct {
	agent  *lease.Agent
	record []byte
}

// expect tells the index what t is about to write. Registry.mu is held.
func (t *together) expect(x *index) {
	for _, p := range t.plans {
		if p.writes {
			x.own[p.agent.IP] = ownRecord{agent: p.agent, record: p.record}
		}
	}
}

// forgo takes back what expect told: it is not known that t was written.
// Registry.mu is held.
func (t *together) forgo(x *index) {
	for _, p := range t.plans {
		if p.writes {
			delete(x.own, p.agent.IP)
		}
	}
}
