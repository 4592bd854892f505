// Package scene is the cluster of DC/OS's own sample state, made in a lab: one
// host with the coordinator, which joins without bridges as a DC/OS master
// does, and two agents with companion and Docker Engine. The demo shows it,
// and tests are played in it.
package scene

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// MasterJSON is the configuration of the sample: overlay dcos with IPv4,
// overlay dcos6 with IPv6.
//
//go:embed testdata/master.json
var MasterJSON []byte

//go:embed testdata/agent.json
var agentJSON []byte

//go:embed testdata/agent-master.json
var agentMasterJSON []byte

// StateJSON is the state of the sample.
//
//go:embed testdata/overlay-master-state.json
var StateJSON []byte

// Scene is the cluster.
type Scene struct {
	Lab *lab.Lab
	// Master runs the coordinator; A and B are agents.
	Master, A, B *lab.Host
	Coordinator  *lab.Process
	// Companions are by host name.
	Companions map[string]*lab.Process
}

// New makes the hosts and starts the coordinator; nothing has claimed yet.
func New(ctx context.Context, l *lab.Lab) (*Scene, error) {
	s := &Scene{Lab: l, Companions: map[string]*lab.Process{}}
	for _, h := range []struct {
		host **lab.Host
		name string
		ip   string
	}{
		{&s.Master, "master", "172.17.0.2"},
		{&s.A, "a", "172.17.0.4"},
		{&s.B, "b", "172.17.0.3"},
	} {
		var err error
		if *h.host, err = l.AddHost(ctx, h.name, netip.MustParseAddr(h.ip)); err != nil {
			return nil, err
		}
	}
	return s, s.StartCoordinator(ctx)
}

// StartCoordinator starts the coordinator, or starts it again.
func (s *Scene) StartCoordinator(ctx context.Context, args ...string) (err error) {
	s.Coordinator, err = s.Master.StartCoordinator(ctx, lab.CoordinatorOptions{Config: MasterJSON, Args: args})
	return err
}

// Agents are the hosts that containers run on.
func (s *Scene) Agents() []*lab.Host { return []*lab.Host{s.A, s.B} }

// AgentJSON is the agent's file of a host that runs containers: DC/OS's sample
// with the coordinator's address, and with changes if any.
func (s *Scene) AgentJSON(changes map[string]any) ([]byte, error) {
	return s.agentFile(agentJSON, changes)
}

func (s *Scene) agentFile(base []byte, changes map[string]any) ([]byte, error) {
	var conf map[string]any
	if err := json.Unmarshal(base, &conf); err != nil {
		return nil, err
	}
	conf["master"] = s.Master.CoordinatorURL()
	for k, v := range changes {
		if inner, ok := v.(map[string]any); ok {
			old, _ := conf[k].(map[string]any)
			for ik, iv := range inner {
				old[ik] = iv
			}
			continue
		}
		conf[k] = v
	}
	return json.Marshal(conf)
}

// StartCompanion starts the companion of a host, with the sample's file.
func (s *Scene) StartCompanion(ctx context.Context, h *lab.Host) error {
	base := agentJSON
	if h == s.Master {
		base = agentMasterJSON
	}
	conf, err := s.agentFile(base, nil)
	if err != nil {
		return err
	}
	p, err := h.StartCompanion(ctx, conf)
	if err != nil {
		return err
	}
	s.Companions[h.Name] = p
	return nil
}

// Up starts Docker on both agents, then the companions one by one, so that
// the hosts get the leases of the sample.
func (s *Scene) Up(ctx context.Context) error {
	for _, h := range s.Agents() {
		if _, err := h.StartDocker(ctx); err != nil {
			return err
		}
	}
	for _, h := range []*lab.Host{s.Master, s.A, s.B} {
		if err := s.StartCompanion(ctx, h); err != nil {
			return err
		}
	}
	return s.AwaitPeers(ctx)
}

// AwaitPeers waits until every host knows each other's VTEP.
func (s *Scene) AwaitPeers(ctx context.Context) error {
	hosts := []*lab.Host{s.Master, s.A, s.B}
	for _, h := range hosts {
		err := lab.Until(ctx, "peers on host "+h.Name, func(ctx context.Context) error {
			out, err := h.Run(ctx, "ip", "-o", "route", "show", "proto", "44")
			if err != nil {
				return err
			}
			if n := lines(out); n != len(hosts)-1 {
				return fmt.Errorf("there are %d routes to other agents", n)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func lines(s string) (n int) {
	for _, c := range s {
		if c == '\n' {
			n++
		}
	}
	return n
}

// State reads /overlay-master/state.
func (s *Scene) State(ctx context.Context) (masterstate.State, error) {
	var state masterstate.State
	code, body, err := s.A.HTTP(ctx, http.MethodGet, s.Master.CoordinatorURL()+"/overlay-master/state", nil)
	if err != nil {
		return state, err
	}
	if code != http.StatusOK {
		return state, fmt.Errorf("the state answers %d: %s", code, body)
	}
	return state, json.Unmarshal(body, &state)
}

// CNI is the file of an overlay as a Mesos operator has it, without
// cniVersion.
func CNI(overlay string) []byte {
	return fmt.Appendf(nil, `{"name": %q, "type": "dcos-overlay", "ipam": {"type": "dcos-ipam"}}`, overlay)
}
