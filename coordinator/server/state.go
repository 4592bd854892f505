package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// callback is what jsonp may be: a name of JavaScript, with dots.
const callback = `^[A-Za-z_$][A-Za-z0-9_$.]*$`

func (s *Server) getState(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := bounded(r)
	defer cancel()
	return s.writeState(ctx, w, r)
}

// writeState answers with DC/OS's state, as jsonp's argument if r asks for it.
func (s *Server) writeState(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	snapshot, err := s.registry.Snapshot(ctx)
	if err != nil {
		return err
	}
	state := masterstate.State{Agents: make([]masterstate.Agent, 0, len(snapshot.Agents)), Network: *snapshot.Network}
	for _, a := range snapshot.Agents {
		state.Agents = append(state.Agents, masterstate.Entry(a, snapshot.Network))
	}
	name := r.URL.Query().Get("jsonp")
	if name == "" {
		s.write(w, http.StatusOK, state)
		return nil
	}
	if !regexp.MustCompile(callback).MatchString(name) {
		return fail(api.CodeInvalid, "jsonp is %q: it must be the name of a JavaScript function", name)
	}
	body, err := json.Marshal(state)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/javascript")
	// A caller that does not take its answer has gone away.
	_, _ = w.Write([]byte(name + "(" + string(body) + ");"))
	return nil
}

// importState takes over what the agents of a DC/OS state hold. Of such a state
// more is read over than is read: it is another system's.
func (s *Server) importState(w http.ResponseWriter, r *http.Request) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	state, err := masterstate.Parse(data)
	if err != nil {
		return fail(api.CodeInvalid, "the body is not a state of DC/OS's: %v", err)
	}
	ctx, cancel := patient(r)
	defer cancel()
	result, err := s.registry.Import(ctx, state, "")
	if err != nil {
		return err
	}
	s.log.Info("state imported", "imported", result.Imported, "unchanged", result.Unchanged, "empty", result.Empty, "caller", who(r))
	s.write(w, http.StatusOK, result)
	return nil
}

// deleteAgents forgets the agents that the body names, and answers with the
// state without them.
func (s *Server) deleteAgents(w http.ResponseWriter, r *http.Request) error {
	var req api.DeleteAgentsRequest
	if err := read(r, &req); err != nil {
		return err
	}
	var ips []netip.Addr
	var bad []string
	for _, text := range req.Agents {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			bad = append(bad, `"`+text+`"`)
			continue
		}
		ips = append(ips, ip.Unmap())
	}
	if len(bad) > 0 {
		return fail(api.CodeInvalid, "nothing is deleted, for these are not addresses of agents: %s", strings.Join(bad, ", "))
	}
	ctx, cancel := patient(r)
	defer cancel()
	if err := s.registry.Delete(ctx, ips, req.Force); err != nil {
		return err
	}
	s.log.Info("agents deleted", "agents", req.Agents, "force", req.Force, "caller", who(r))
	return s.writeState(ctx, w, r)
}
