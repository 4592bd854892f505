package server

import (
	"net/http"

	"github.com/dcos/dcos-overlay/coordinator/overview"
	"github.com/dcos/dcos-overlay/coordinator/page"
)

// pathPage is the path of one of the page's files.
const pathPage = page.Prefix + "{name}"

// index answers browsers with the page, and programs with the list of calls.
func (s *Server) index(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Vary", "Accept")
	if !page.Wanted(r) {
		return writeText(w, listing)
	}
	s.page.ServeIndex(w, r)
	return nil
}

// pageFile answers with one of the files that the page consists of.
func (s *Server) pageFile(w http.ResponseWriter, r *http.Request) error {
	if !s.page.ServeFile(w, r, r.PathValue("name")) {
		return noSuchPath(w, r)
	}
	return nil
}

// getOverview answers with the cluster in figures, and the agents asked for.
func (s *Server) getOverview(w http.ResponseWriter, r *http.Request) error {
	q, err := overview.Parse(r.URL.Query())
	if err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	resp, err := s.overview.Answer(ctx, q)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	s.write(w, http.StatusOK, resp)
	return nil
}
