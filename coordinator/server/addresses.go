package server

import (
	"net/http"
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/api"
)

// fixedAddress reads the {address} of r's path.
func fixedAddress(r *http.Request) (netip.Addr, error) {
	text := r.PathValue("address")
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" || ip.Is4In6() {
		return netip.Addr{}, fail(api.CodeInvalid, "%q is not an address of an overlay, such as 9.0.255.5", text)
	}
	return ip, nil
}

func (s *Server) claimAddress(w http.ResponseWriter, r *http.Request) error {
	ip, err := agentIP(r)
	if err != nil {
		return err
	}
	addr, err := fixedAddress(r)
	if err != nil {
		return err
	}
	var req api.AddressRequest
	if err := read(r, &req); err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	resp, err := s.registry.ClaimAddress(ctx, ip, r.PathValue("overlay"), addr, req)
	if err != nil {
		return err
	}
	s.write(w, http.StatusOK, resp)
	return nil
}

// releaseAddress needs to be told whose the address was: a DEL that comes late
// must not take it from the container that has it by now.
func (s *Server) releaseAddress(w http.ResponseWriter, r *http.Request) error {
	ip, err := agentIP(r)
	if err != nil {
		return err
	}
	addr, err := fixedAddress(r)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	container, ifName := query.Get("container"), query.Get("ifname")
	if container == "" || ifName == "" {
		return fail(api.CodeInvalid, "container and ifname must say whose the address was")
	}
	ctx, cancel := bounded(r)
	defer cancel()
	if err := s.registry.ReleaseAddress(ctx, ip, r.PathValue("overlay"), addr, container, ifName); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) getReservation(w http.ResponseWriter, r *http.Request) error {
	addr, err := fixedAddress(r)
	if err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	all, err := s.registry.Reservations(ctx, r.PathValue("name"))
	if err != nil {
		return err
	}
	for _, kept := range all {
		if kept.Address == addr {
			s.write(w, http.StatusOK, kept)
			return nil
		}
	}
	return fail(api.CodeNotFound, "address %s of overlay %s is not reserved", addr, r.PathValue("name"))
}

func (s *Server) putReservation(w http.ResponseWriter, r *http.Request) error {
	addr, err := fixedAddress(r)
	if err != nil {
		return err
	}
	var req api.Reservation
	if err := read(r, &req); err != nil {
		return err
	}
	if req.Address.IsValid() && req.Address != addr {
		return fail(api.CodeInvalid, "the body is of address %s, and the path of %s", req.Address, addr)
	}
	ctx, cancel := bounded(r)
	defer cancel()
	kept, err := s.registry.PutReservation(ctx, r.PathValue("name"), addr, req.Label)
	if err != nil {
		return err
	}
	s.log.Info("address reserved", "overlay", r.PathValue("name"), "address", addr, "label", req.Label, "caller", who(r))
	s.write(w, http.StatusOK, kept)
	return nil
}

func (s *Server) deleteReservation(w http.ResponseWriter, r *http.Request) error {
	addr, err := fixedAddress(r)
	if err != nil {
		return err
	}
	ctx, cancel := bounded(r)
	defer cancel()
	if err := s.registry.DeleteReservation(ctx, r.PathValue("name"), addr); err != nil {
		return err
	}
	s.log.Info("address reserved no longer", "overlay", r.PathValue("name"), "address", addr, "caller", who(r))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
