package server

import (
	"cmp"
	"net/http"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/rights"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

func (s *Server) claim(w http.ResponseWriter, r *http.Request) error {
	begin := time.Now()
	resp, err := s.doClaim(r)
	s.metrics.claimed(time.Since(begin), err)
	if err != nil {
		return err
	}
	s.write(w, http.StatusOK, resp)
	return nil
}

func (s *Server) doClaim(r *http.Request) (api.ClaimResponse, error) {
	ip, err := agentIP(r)
	if err != nil {
		return api.ClaimResponse{}, err
	}
	var req api.ClaimRequest
	if err := read(r, &req); err != nil {
		return api.ClaimResponse{}, err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	caller, _ := r.Context().Value(callerKey{}).(rights.Caller)
	return s.registry.ClaimBy(ctx, ip, req, caller.MayMoveFrom)
}

func (s *Server) release(w http.ResponseWriter, r *http.Request) error {
	ip, err := agentIP(r)
	if err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	overlay := ""
	for name, values := range r.URL.Query() {
		// A mistake here would release more than was meant.
		if name != "overlay" || len(values) != 1 || values[0] == "" {
			return fail(api.CodeInvalid, "%s takes no parameter but overlay, once and with the name of one", r.URL.Path)
		}
		overlay = values[0]
	}
	if overlay != "" {
		err = s.registry.ReleaseOverlay(ctx, ip, overlay)
	} else {
		err = s.registry.Release(ctx, ip)
	}
	if err != nil {
		return err
	}
	s.log.Info("agent released what it held", "agent", ip, "overlay", cmp.Or(overlay, "all"))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	ip, err := agentIP(r)
	if err != nil {
		return err
	}
	var req api.StatusRequest
	if err := read(r, &req); err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	if err := s.registry.Status(ctx, ip, req); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) getAgent(w http.ResponseWriter, r *http.Request) error {
	ip, err := agentIP(r)
	if err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	a, err := s.registry.Agent(ctx, ip)
	if err != nil {
		return err
	}
	status := s.registry.Liveness([]*lease.Agent{a})[ip]
	entry := masterstate.Entry(a, s.registry.Network())
	s.write(w, http.StatusOK, api.AgentResponse{Agent: *a, Status: status, Entry: entry})
	return nil
}

func (s *Server) getAgents(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	watch, err := flag(r, "watch")
	if err != nil {
		return err
	}
	status, err := flag(r, "status")
	if err != nil {
		return err
	}
	// HEAD would be an answer without an end and without a body.
	if watch && r.Method == http.MethodGet {
		return s.stream(w, r, query.Get("since"), query.Get("epoch"))
	}
	ctx, cancel := bounded(r)
	defer cancel()
	snapshot, err := s.registry.Snapshot(ctx)
	if err != nil {
		return err
	}
	resp := api.AgentsResponse{
		Agents:   make([]lease.Agent, 0, len(snapshot.Agents)),
		Network:  *snapshot.Network,
		Revision: snapshot.Revision,
	}
	for _, a := range snapshot.Agents {
		resp.Agents = append(resp.Agents, *a)
	}
	if status {
		resp.Status = s.registry.Liveness(snapshot.Agents)
	}
	s.write(w, http.StatusOK, resp)
	return nil
}
