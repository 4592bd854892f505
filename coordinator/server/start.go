package server

import (
	"net/http"

	"github.com/dcos/dcos-overlay/internal/api"
)

// afterStart makes h wait until calls may be answered, for as long as a call
// may take.
func (s *Server) afterStart(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if s.begun == nil {
			return h(w, r)
		}
		ctx, cancel := bounded(r)
		defer cancel()
		select {
		case <-s.begun:
			return h(w, r)
		case <-ctx.Done():
		}
		if why := s.registry.Trouble(); why != nil {
			return fail(api.CodeUnavailable, "the coordinator has not started yet, for it can't use etcd: %v", why)
		}
		return fail(api.CodeUnavailable, "the coordinator has not started yet: its log says what it waits for")
	}
}
