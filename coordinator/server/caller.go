package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/rights"
	"github.com/dcos/dcos-overlay/internal/api"
)

// agentIP reads the {ip} of r's path.
func agentIP(r *http.Request) (netip.Addr, error) {
	text := r.PathValue("ip")
	ip, err := netip.ParseAddr(text)
	ip = ip.Unmap()
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
		return netip.Addr{}, fail(api.CodeInvalid, "%q is not the address of an agent, such as 172.17.0.2", text)
	}
	return ip, nil
}

// guard lets only those callers come to h who may make a call with that need.
// What goes on ends with the caller's certificate, at the latest.
func (s *Server) guard(need rights.Need, h handler) handler {
	if need == rights.Open {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		caller, err := s.caller(r)
		if err == nil {
			err = caller.May(need, r.Method+" "+r.URL.Path)
		}
		if err != nil {
			return err
		}
		if need == rights.Own {
			ip, err := agentIP(r)
			if err == nil {
				err = s.mayActFor(caller, ip)
			}
			if err != nil {
				return err
			}
		}
		ctx := context.WithValue(r.Context(), callerKey{}, caller)
		if !caller.Until.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, caller.Until)
			defer cancel()
		}
		return h(w, r.WithContext(ctx))
	}
}

// callerKey is where guard puts the caller into a request's context.
type callerKey struct{}

// who tells the log who made the call r.
func who(r *http.Request) string {
	if c, ok := r.Context().Value(callerKey{}).(rights.Caller); ok && c.Shown != "" {
		return r.RemoteAddr + " " + c.Shown
	}
	return r.RemoteAddr
}

// caller finds out who makes the call r.
func (s *Server) caller(r *http.Request) (rights.Caller, error) {
	if !s.clientAuth {
		remote, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			return rights.Caller{}, fmt.Errorf("the caller's address %q: %w", r.RemoteAddr, err)
		}
		return rights.Caller{Kind: rights.Unasked, Addrs: []netip.Addr{remote.Addr().Unmap().WithZone("")}}, nil
	}
	// Files that can't be used are the log's matter: the ones before count.
	id, _ := s.tls.Current()
	var shown []*x509.Certificate
	if r.TLS != nil {
		shown = r.TLS.PeerCertificates
	}
	known, ok := r.Context().Value(connKey{}).(*acquaintance)
	if !ok {
		known = new(acquaintance)
	}
	return known.certified(shown, id.Authorities, time.Now())
}

// mayActFor tells whether the caller may act for the agent at ip. Over loopback
// it may act for the machine that it is on.
func (s *Server) mayActFor(c rights.Caller, ip netip.Addr) error {
	refused := c.MayActFor(ip)
	if refused == nil || c.Kind != rights.Unasked || !c.Addrs[0].IsLoopback() {
		return refused
	}
	own, err := s.local()
	if err != nil {
		return err
	}
	if slices.Contains(own, ip) {
		return nil
	}
	return refused
}

// connKey is where a connection's acquaintance is in its context.
type connKey struct{}

// acquaintance is who was found to be at the other end of a connection, which
// takes a tenth of a millisecond to find out.
type acquaintance struct {
	mu     sync.Mutex
	caller rights.Caller
	// roots are the authorities that it was found out by; nil before.
	roots *x509.CertPool
}

// certified is rights.Certified, remembered as long as the authorities are the
// same and the certificate counts.
func (a *acquaintance) certified(shown []*x509.Certificate, roots *x509.CertPool, now time.Time) (rights.Caller, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.roots == roots && !now.After(a.caller.Until) {
		return a.caller, nil
	}
	caller, err := rights.Certified(shown, roots, now)
	if err == nil {
		a.caller, a.roots = caller, roots
	}
	return caller, err
}

// interfaceAddrs are the addresses of this machine.
func interfaceAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out, nil
}
