package server

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// callback is what jsonp may be: a name of JavaScript, with dots.
const callback = `^[A-Za-z_$][A-Za-z0-9_$.]*$`

// packedTag ends the tag of an answer that is packed.
const packedTag = "-gzip"

// packed is the state packed with gzip, as of when tag was its tag. It is made
// for all who ask: to pack it takes ten times as long as to send it.
type packed struct {
	mu   sync.Mutex
	tag  string
	body []byte
}

// getState answers with DC/OS's state, or says that the caller's is the present
// one.
func (s *Server) getState(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := bounded(r)
	defer cancel()
	view, err := s.registry.View(ctx)
	if err != nil {
		return err
	}
	if r.URL.Query().Has("jsonp") {
		return s.writeState(w, r, view)
	}
	tag := fmt.Sprintf("%s-%d", view.Epoch, view.Changed)
	zipped := takesGzip(r)
	h := w.Header()
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", quoted(tag))
	if zipped {
		h.Set("ETag", quoted(tag+packedTag))
	}
	if known(r, tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if !zipped {
		return s.writeState(w, r, view)
	}
	body, err := s.packedState(tag, view)
	if err != nil {
		return err
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Encoding", "gzip")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	// A caller that does not take its answer has gone away.
	_, _ = w.Write(body)
	return nil
}

// packedState is the state as view shows it, packed. Callers that come while
// it is being made wait for it.
func (s *Server) packedState(tag string, view registry.View) ([]byte, error) {
	p := &s.packed
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tag == tag {
		return p.body, nil
	}
	var out bytes.Buffer
	// The entries are so much alike that more effort gains little.
	pack, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stateOf(pack, view), pack.Close()); err != nil {
		return nil, fmt.Errorf("pack the state: %w", err)
	}
	p.tag, p.body = tag, out.Bytes()
	return p.body, nil
}

// stateOf writes DC/OS's state as view shows it.
func stateOf(w io.Writer, view registry.View) error {
	state := masterstate.State{Agents: []masterstate.Agent{}, Network: *view.Network}
	if err := writeList(w, state, view.Entries()); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// writeState answers with the state, as jsonp's argument if r asks for it.
func (s *Server) writeState(w http.ResponseWriter, r *http.Request, view registry.View) error {
	name := r.URL.Query().Get("jsonp")
	if name == "" {
		w.Header().Set("Content-Type", "application/json")
		s.sent(r, stateOf(w, view))
		return nil
	}
	if !regexp.MustCompile(callback).MatchString(name) {
		return fail(api.CodeInvalid, "jsonp is %q: it must be the name of a JavaScript function", name)
	}
	var body bytes.Buffer
	if err := stateOf(&body, view); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/javascript")
	// A caller that does not take its answer has gone away.
	_, _ = fmt.Fprintf(w, "%s(%s);", name, bytes.TrimSpace(body.Bytes()))
	return nil
}

// sent ends an answer that has begun. One that broke off must not look whole.
func (s *Server) sent(r *http.Request, err error) {
	if err == nil {
		return
	}
	s.log.Debug("an answer broke off", "path", r.URL.Path, "caller", r.RemoteAddr, "error", err)
	panic(http.ErrAbortHandler)
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
	view, err := s.registry.View(ctx)
	if err != nil {
		return err
	}
	return s.writeState(w, r, view)
}
