package server

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/rights"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// answerSize is what the answer to a claim of few overlays takes, in bytes.
const answerSize = 2048

func (s *Server) claim(w http.ResponseWriter, r *http.Request) error {
	begin := time.Now()
	grant, err := s.doClaim(r)
	s.metrics.claimed(time.Since(begin), err)
	if err != nil {
		return err
	}
	body, err := grant.AppendJSON(make([]byte, 0, answerSize))
	if err != nil {
		return err
	}
	s.writeJSON(w, http.StatusOK, body)
	return nil
}

func (s *Server) doClaim(r *http.Request) (registry.Grant, error) {
	ip, err := agentIP(r)
	if err != nil {
		return registry.Grant{}, err
	}
	var req api.ClaimRequest
	if err := read(r, &req); err != nil {
		return registry.Grant{}, err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	caller, _ := r.Context().Value(callerKey{}).(rights.Caller)
	return s.registry.Grant(ctx, ip, req, caller.MayMoveFrom)
}

func (s *Server) release(w http.ResponseWriter, r *http.Request) error {
	ip, err := agentIP(r)
	if err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	overlay, subnet, err := released(r)
	if err != nil {
		return err
	}
	switch {
	case subnet.IsValid():
		err = s.registry.ReleaseSubnet(ctx, ip, overlay, subnet)
	case overlay != "":
		err = s.registry.ReleaseOverlay(ctx, ip, overlay)
	default:
		err = s.registry.Release(ctx, ip)
	}
	if err != nil {
		return err
	}
	what := cmp.Or(overlay, "all")
	if subnet.IsValid() {
		what = fmt.Sprintf("%s of %s", subnet, overlay)
	}
	s.log.Info("agent released what it held", "agent", ip, "overlay", what)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// released is what a release is of: all, an overlay, or a subnet of one. A
// mistake here would release more than was meant.
func released(r *http.Request) (overlay string, subnet netip.Prefix, err error) {
	for name, values := range r.URL.Query() {
		if name != "overlay" && name != "subnet" || len(values) != 1 || values[0] == "" {
			return "", subnet, fail(api.CodeInvalid, "%s takes no parameters but overlay, with the name of one, and subnet, each once", r.URL.Path)
		}
	}
	overlay = r.URL.Query().Get("overlay")
	text := r.URL.Query().Get("subnet")
	if text == "" {
		return overlay, subnet, nil
	}
	if subnet, err = netip.ParsePrefix(text); err != nil || overlay == "" {
		return "", subnet, fail(api.CodeInvalid, "subnet is %q: it must be one such as 9.0.1.0/24, and overlay must say of which", text)
	}
	return overlay, subnet, nil
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
	status := s.registry.How(ip)
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
	view, err := s.registry.View(ctx)
	if err != nil {
		return err
	}
	resp := api.AgentsResponse{Agents: []lease.Agent{}, Network: *view.Network, Revision: view.Revision}
	if status {
		resp.Status = s.registry.Liveness(view)
	}
	w.Header().Set("Content-Type", "application/json")
	s.sent(r, writeList(w, resp, plain(view.Records())))
	return nil
}
