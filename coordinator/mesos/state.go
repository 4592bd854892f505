package mesos

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
)

// maxRemoved bounds the agents that are remembered as removed. Beyond it the
// state is asked for anew, in which they are not.
const maxRemoved = 100000

// event is what matters of a master's event; see Event in Mesos's
// include/mesos/v1/master/master.proto.
type event struct {
	Type       string `json:"type"`
	Subscribed *struct {
		GetState struct {
			GetAgents *struct {
				Agents    []agent     `json:"agents"`
				Recovered []agentInfo `json:"recovered_agents"`
			} `json:"get_agents"`
		} `json:"get_state"`
		Heartbeat float64 `json:"heartbeat_interval_seconds"`
	} `json:"subscribed"`
	AgentAdded *struct {
		Agent agent `json:"agent"`
	} `json:"agent_added"`
	AgentRemoved *struct {
		ID value `json:"agent_id"`
	} `json:"agent_removed"`
}

type agent struct {
	Info agentInfo `json:"agent_info"`
	// PID is how the agent's process is reached: slave(1)@10.0.0.1:5051.
	PID string `json:"pid"`
}

type agentInfo struct {
	ID value `json:"id"`
}

type value struct {
	Value string `json:"value"`
}

// address is where the agent listens, which is its underlay address.
func (a agent) address() (netip.Addr, error) {
	_, at, _ := strings.Cut(a.PID, "@")
	ap, err := netip.ParseAddrPort(at)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("agent %s has pid %q, which tells no address: %w", a.Info.ID.Value, a.PID, err)
	}
	return ap.Addr().Unmap().WithZone(""), nil
}

// state is what a stream has told of the agents.
type state struct {
	// agents are those that are registered, by id.
	agents map[string]netip.Addr
	// recovered are those that the master knows of the one before it, and
	// that have not come to it yet.
	recovered map[string]bool
	// removed are those that were removed before the stream's eyes. One that
	// was recovered has no address here.
	removed map[string]netip.Addr
	// heartbeat is how often the master says that it is there.
	heartbeat time.Duration
}

// errFirst ends a stream that does not begin with the state.
var errFirst = errors.New("the stream does not begin with SUBSCRIBED and the agents")

// begin reads the first event.
func begin(record []byte) (*state, error) {
	var e event
	if err := json.Unmarshal(record, &e); err != nil {
		return nil, fmt.Errorf("read an event: %w", err)
	}
	// Without get_agents nothing is known, which is not that there are none.
	if e.Type != "SUBSCRIBED" || e.Subscribed == nil || e.Subscribed.GetState.GetAgents == nil {
		return nil, errFirst
	}
	s := &state{
		agents: map[string]netip.Addr{}, recovered: map[string]bool{}, removed: map[string]netip.Addr{},
		heartbeat: time.Duration(e.Subscribed.Heartbeat * float64(time.Second)),
	}
	if s.heartbeat <= 0 {
		s.heartbeat = defaultHeartbeat
	}
	for _, a := range e.Subscribed.GetState.GetAgents.Agents {
		if err := s.add(a); err != nil {
			return nil, err
		}
	}
	for _, a := range e.Subscribed.GetState.GetAgents.Recovered {
		s.recovered[a.ID.Value] = true
	}
	return s, nil
}

// apply takes in a later event. Those of no interest are passed over.
func (s *state) apply(record []byte) error {
	var e event
	if err := json.Unmarshal(record, &e); err != nil {
		return fmt.Errorf("read an event: %w", err)
	}
	switch {
	case e.Type == "AGENT_ADDED" && e.AgentAdded != nil:
		return s.add(e.AgentAdded.Agent)
	case e.Type == "AGENT_REMOVED" && e.AgentRemoved != nil:
		return s.remove(e.AgentRemoved.ID.Value)
	}
	return nil
}

func (s *state) add(a agent) error {
	id := a.Info.ID.Value
	ip, err := a.address()
	if err != nil {
		return err
	}
	delete(s.recovered, id)
	delete(s.removed, id)
	s.agents[id] = ip
	return nil
}

func (s *state) remove(id string) error {
	ip, known := s.agents[id]
	if !known && !s.recovered[id] {
		return nil
	}
	delete(s.agents, id)
	delete(s.recovered, id)
	if len(s.removed) == maxRemoved {
		return fmt.Errorf("%d agents were removed: asking for the state anew", maxRemoved)
	}
	s.removed[id] = ip
	return nil
}

// view is s as the registry takes it.
func (s *state) view() registry.MesosView {
	v := registry.MesosView{
		Registered: make(map[netip.Addr]string, len(s.agents)),
		Removed:    make(map[netip.Addr]string, len(s.removed)),
		Recovered:  make(map[string]bool, len(s.recovered)),
		RemovedIDs: make(map[string]bool, len(s.removed)),
	}
	for id, ip := range s.agents {
		v.Registered[ip] = max(id, v.Registered[ip])
	}
	for id, ip := range s.removed {
		v.RemovedIDs[id] = true
		if ip.IsValid() {
			v.Removed[ip] = max(id, v.Removed[ip])
		}
	}
	for id := range s.recovered {
		v.Recovered[id] = true
	}
	return v
}
