package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
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
	ip, err := s.ownIP(r)
	if err != nil {
		return api.ClaimResponse{}, err
	}
	var req api.ClaimRequest
	if err := read(r, &req); err != nil {
		return api.ClaimResponse{}, err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	return s.registry.Claim(ctx, ip, req)
}

func (s *Server) release(w http.ResponseWriter, r *http.Request) error {
	ip, err := s.ownIP(r)
	if err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	if err := s.registry.Release(ctx, ip); err != nil {
		return err
	}
	s.log.Info("agent released its lease", "agent", ip)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	ip, err := s.ownIP(r)
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
	s.write(w, http.StatusOK, a)
	return nil
}

func (s *Server) getAgents(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	if text := query.Get("watch"); text != "" {
		watch, err := strconv.ParseBool(text)
		if err != nil {
			return fail(api.CodeInvalid, "watch is %q: it must be true or false", text)
		}
		// HEAD would be an answer without an end and without a body.
		if watch && r.Method == http.MethodGet {
			return s.stream(w, r, query.Get("since"))
		}
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
	s.write(w, http.StatusOK, resp)
	return nil
}

func (s *Server) getOverlays(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := bounded(r)
	defer cancel()
	snapshot, err := s.registry.Snapshot(ctx)
	if err != nil {
		return err
	}
	s.write(w, http.StatusOK, snapshot.Network.Overlays)
	return nil
}

func (s *Server) getOverlay(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := bounded(r)
	defer cancel()
	snapshot, err := s.registry.Snapshot(ctx)
	if err != nil {
		return err
	}
	o, ok := snapshot.Network.Overlay(r.PathValue("name"))
	if !ok {
		return fail(api.CodeNotFound, "there is no overlay %q: %s lists them", r.PathValue("name"), api.PathOverlays)
	}
	s.write(w, http.StatusOK, o)
	return nil
}
