package server

import (
	"io"
	"net/http"

	"github.com/dcos/dcos-overlay/internal/api"
)

// listing is what / answers to programs.
const listing = `dcos-overlay coordinator

GET    /overlay-master/state           state of all agents (DC/OS)
POST   /overlay-master/agents/delete   forget agents (DC/OS)
POST   /v1/import                      take over a state of DC/OS's
GET    /v1/agents                      agents; ?watch=true&since=R streams them
GET    /v1/agents/{ip}                 one agent, and how it is
PUT    /v1/agents/{ip}/lease           claim
DELETE /v1/agents/{ip}/lease           release; ?overlay=NAME for one overlay
PUT    /v1/agents/{ip}/status          states and address use
GET    /v1/overlays                    overlays
GET    /v1/overlays/{name}             one overlay
PUT    /v1/overlays/{name}             create, enable, disable
DELETE /v1/overlays/{name}             delete; ?force=true at once
GET    /v1/overview                    the cluster in figures; ?q=WORDS finds agents
GET    /healthz                        this process answers
GET    /readyz                         etcd answers and the index follows it
GET    /metrics                        Prometheus
`

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) error { return writeText(w, "ok\n") }

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := bounded(r)
	defer cancel()
	if err := s.registry.Ready(ctx); err != nil {
		// Not a failed call: whoever asks before the start is over is told so.
		e := fail(api.CodeUnavailable, "not ready: %v", err)
		s.write(w, statusOf(e.Code), api.ErrorBody{Error: e})
		return nil
	}
	return writeText(w, "ok\n")
}

func writeText(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	// A caller that does not take its answer has gone away.
	_, _ = io.WriteString(w, text)
	return nil
}
