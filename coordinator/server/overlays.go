package server

import (
	"context"
	"net/http"
	"strconv"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

// listed answers what get tells, for the {name} of the path if it has one.
func listed[T any](s *Server, get func(ctx context.Context, name string) (T, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := bounded(r)
		defer cancel()
		all, err := get(ctx, r.PathValue("name"))
		if err != nil {
			return err
		}
		s.write(w, http.StatusOK, all)
		return nil
	}
}

func (s *Server) overlays(ctx context.Context, _ string) ([]api.Overlay, error) {
	return s.registry.Overlays(ctx)
}

// putOverlay answers 201 where the overlay was not there, else 200, with the
// overlay as it is now.
func (s *Server) putOverlay(w http.ResponseWriter, r *http.Request) error {
	var o network.Overlay
	if err := read(r, &o); err != nil {
		return err
	}
	name := r.PathValue("name")
	if o.Name != "" && o.Name != name {
		return fail(api.CodeInvalid, "the body is of overlay %q, and the path of %q: an overlay's name can't change", o.Name, name)
	}
	o.Name = name
	ctx, cancel := bounded(r)
	defer cancel()
	created, err := s.registry.PutOverlay(ctx, o)
	if err != nil {
		return err
	}
	s.log.Info("overlay written", "overlay", name, "created", created, "enabled", o.IsEnabled(), "isolated", o.Isolated, "caller", who(r))
	now, err := s.registry.Overlay(ctx, name)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	s.write(w, status, now)
	return nil
}

// deleteOverlay answers 204 when the overlay is gone, and 202 with it as long
// as agents hold of it.
func (s *Server) deleteOverlay(w http.ResponseWriter, r *http.Request) error {
	force, err := flag(r, "force")
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	ctx, cancel := patient(r)
	defer cancel()
	gone, err := s.registry.DeleteOverlay(ctx, name, force)
	if err != nil {
		return err
	}
	s.log.Info("overlay deleted", "overlay", name, "force", force, "gone", gone, "caller", who(r))
	if gone {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	o, err := s.registry.Overlay(ctx, name)
	if err != nil {
		return err
	}
	s.write(w, http.StatusAccepted, o)
	return nil
}

// flag reads a parameter of r's query that is true or false.
func flag(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, fail(api.CodeInvalid, "%s is %q: it must be true or false", name, text)
	}
	return v, nil
}
