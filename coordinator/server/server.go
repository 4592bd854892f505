// Package server is the coordinator's HTTP interface: DC/OS's two calls, the
// agents' own, and what operators watch it by.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/coordinator/connlimit"
	"github.com/dcos/dcos-overlay/coordinator/overview"
	"github.com/dcos/dcos-overlay/coordinator/page"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/rights"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/tlsfile"
)

const (
	// maxBody bounds a request's body in bytes: a status with a thousand
	// overlays has a tenth of it.
	maxBody = 1 << 20
	// maxHeader bounds a request's header in bytes.
	maxHeader = 64 << 10
	// headerTimeout and readTimeout bound how long a request may take to come,
	// and the first a TLS handshake, too.
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	// writeTimeout bounds one answer, or one batch of a stream: a snapshot of
	// 65,536 agents is some 30 MB.
	writeTimeout = time.Minute
	idleTimeout  = 2 * time.Minute
	// callTimeout bounds what a call waits for etcd. Agents wait 5 s for an
	// answer, so this one comes in time to be read.
	callTimeout = 4 * time.Second
	// patientTimeout bounds an operator's change of many agents. It is less
	// than writeTimeout, so that the answer can be sent.
	patientTimeout = 50 * time.Second
	// maxImport bounds a state that is imported, in bytes: 65,536 agents with
	// two overlays each take 100 MB.
	maxImport = 256 << 20
	// drainTimeout is how long calls under way may take when stopping.
	drainTimeout = 5 * time.Second
	// DefaultPing is how often a stream says that it is alive. Agents take one
	// that is silent for three times as long for dead.
	DefaultPing = 10 * time.Second
)

// pathOverlay is the path of one overlay.
const pathOverlay = api.PathOverlays + "/{name}"

// Options are what a Server is made of.
type Options struct {
	Registry *registry.Registry
	Log      *slog.Logger
	// Ping is how often streams ping; 0 means DefaultPing.
	Ping time.Duration
	// LocalAddrs are this machine's addresses, for which a caller on loopback
	// may act; nil means the kernel's.
	LocalAddrs func() ([]netip.Addr, error)
	// Begun is closed when calls may be answered; nil means at once.
	Begun <-chan struct{}
	// Collectors are told with the server's own metrics.
	Collectors []prometheus.Collector
	// TLS, if not nil, makes it HTTPS. It needs a certificate; where it has
	// authorities, callers need certificates of them (package rights).
	TLS *tlsfile.Reader
	// MaxConnections, MaxConnectionsPerHost and MaxStreams bound what is open
	// at a time; 0 means DefaultMaxConnections and so on.
	MaxConnections, MaxConnectionsPerHost, MaxStreams int
}

// Server answers HTTP.
type Server struct {
	registry *registry.Registry
	log      *slog.Logger
	ping     time.Duration
	local    func() ([]netip.Addr, error)
	metrics  *metrics
	packed   packed
	begun    <-chan struct{}
	overview *overview.Overview
	page     *page.Page
	handler  http.Handler

	tls *tlsfile.Reader
	// clientAuth says that callers are known by their certificates.
	clientAuth bool
	// look is how often the TLS files are looked at.
	look time.Duration

	connections *connlimit.Limiter
	streams     places
	timeouts    timeouts

	// stopping ends the streams, which would never end by themselves.
	stopping context.Context
	stop     context.CancelFunc
}

// New makes a Server.
func New(o Options) *Server {
	s := &Server{registry: o.Registry, log: o.Log, ping: o.Ping, local: o.LocalAddrs, metrics: newMetrics(o.Registry),
		overview: overview.New(o.Registry), page: page.New()}
	if s.ping == 0 {
		s.ping = DefaultPing
	}
	if s.local == nil {
		s.local = interfaceAddrs
	}
	s.connections = connlimit.New(cmp.Or(o.MaxConnections, DefaultMaxConnections), cmp.Or(o.MaxConnectionsPerHost, DefaultMaxConnectionsPerHost), o.Log)
	s.streams.max = int64(cmp.Or(o.MaxStreams, DefaultMaxStreams))
	s.timeouts = timeouts{header: headerTimeout, read: readTimeout, write: writeTimeout, idle: idleTimeout}
	s.begun = o.Begun
	s.metrics.registry.MustRegister(o.Collectors...)
	s.metrics.registry.MustRegister(s.boundMetrics()...)
	if s.tls = o.TLS; s.tls != nil {
		id, _ := s.tls.Current()
		s.clientAuth, s.look = id.Authorities != nil, lookEvery
		s.metrics.registry.MustRegister(s.tlsMetrics()...)
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.handler = s.routes()
	return s
}

// Handler answers all paths.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve answers on the listeners until ctx ends, and lets the calls under way
// finish then.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	h := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.timeouts.header,
		ReadTimeout:       s.timeouts.read,
		WriteTimeout:      s.timeouts.write,
		IdleTimeout:       s.timeouts.idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		// HTTP/2 would make many calls of one connection, past its bounds.
		Protocols: new(http.Protocols),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, new(acquaintance))
		},
	}
	h.Protocols.SetHTTP1(true)
	serve := h.Serve
	if s.tls != nil {
		h.TLSConfig = s.tlsConfig()
		serve = func(l net.Listener) error { return h.ServeTLS(l, "", "") }
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			if err := serve(s.connections.Listener(l)); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	if s.tls != nil {
		group.Go(func() error {
			s.watchTLS(ctx)
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		s.stop()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			return errors.Join(fmt.Errorf("finish the HTTP calls under way: %w", err), h.Close())
		}
		return nil
	})
	return group.Wait()
}

// handler answers a request, or fails: what the caller is told of an error,
// and what is logged, is fail's to decide.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one call.
type route struct {
	method, path string
	handler      handler
	// needs is who may make it; if nothing is said, operators.
	needs rights.Need
	// read says that the answer comes from the index, and how old that is.
	read bool
	// limit bounds the body in bytes; 0 means maxBody.
	limit int64
}

// calls are all that there is but /metrics, which everybody may read.
func (s *Server) calls() []route {
	return []route{
		{method: http.MethodGet, path: api.PathState, handler: s.getState, needs: rights.Read, read: true},
		{method: http.MethodPost, path: api.PathAgentsDelete, handler: s.deleteAgents},
		{method: http.MethodGet, path: api.PathAgents, handler: s.getAgents, needs: rights.Read, read: true},
		{method: http.MethodGet, path: api.PathAgents + "/{ip}", handler: s.getAgent, needs: rights.Read, read: true},
		{method: http.MethodPut, path: api.PathLease, handler: s.claim, needs: rights.Own},
		{method: http.MethodDelete, path: api.PathLease, handler: s.release, needs: rights.Own},
		{method: http.MethodPut, path: api.PathStatus, handler: s.status, needs: rights.Own},
		{method: http.MethodGet, path: api.PathOverlays, handler: listed(s, s.overlays), needs: rights.Read, read: true},
		{method: http.MethodGet, path: pathOverlay, handler: listed(s, s.registry.Overlay), needs: rights.Read, read: true},
		{method: http.MethodPut, path: pathOverlay, handler: s.putOverlay},
		{method: http.MethodDelete, path: pathOverlay, handler: s.deleteOverlay},
		{method: http.MethodPut, path: api.PathAddress, handler: s.claimAddress, needs: rights.Own},
		{method: http.MethodDelete, path: api.PathAddress, handler: s.releaseAddress, needs: rights.Own},
		{method: http.MethodGet, path: api.PathAddresses, handler: listed(s, s.registry.Addresses), needs: rights.Read, read: true},
		{method: http.MethodGet, path: api.PathReservations, handler: listed(s, s.registry.Reservations), needs: rights.Read, read: true},
		{method: http.MethodGet, path: api.PathReservation, handler: s.getReservation, needs: rights.Read, read: true},
		{method: http.MethodPut, path: api.PathReservation, handler: s.putReservation},
		{method: http.MethodDelete, path: api.PathReservation, handler: s.deleteReservation},
		{method: http.MethodPost, path: api.PathImport, handler: s.importState, limit: maxImport},
		{method: http.MethodGet, path: "/healthz", handler: s.healthz, needs: rights.Open},
		{method: http.MethodGet, path: "/readyz", handler: s.readyz, needs: rights.Open},
		{method: http.MethodGet, path: api.PathOverview, handler: s.getOverview, needs: rights.Read, read: true},
		// The page itself tells nothing of the cluster. So whoever lacks a
		// certificate is told by it which one his browser needs.
		{method: http.MethodGet, path: "/{$}", handler: s.index, needs: rights.Open},
		{method: http.MethodGet, path: pathPage, handler: s.pageFile, needs: rights.Open},
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	allowed := map[string][]string{"/metrics": {http.MethodGet}}
	for _, r := range s.calls() {
		h := r.handler
		if r.read {
			h = s.fromIndex(h)
		}
		if r.read || r.method != http.MethodGet {
			h = s.afterStart(h)
		}
		mux.Handle(r.method+" "+r.path, s.handle(s.guard(r.needs, h), cmp.Or(r.limit, maxBody)))
		allowed[r.path] = append(allowed[r.path], r.method)
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	for path, methods := range allowed {
		mux.Handle(path, s.handle(wrongMethod(methods), maxBody))
	}
	mux.Handle("/", s.handle(noSuchPath, maxBody))

	// A page that an operator looks at must not be able to delete agents
	// through his browser.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(s.handle(func(http.ResponseWriter, *http.Request) error {
		return fail(api.CodeForbidden, "a page of another site may not change anything here")
	}, maxBody))
	return protection.Handler(mux)
}

// fromIndex makes h's answer say how old the index is that it comes from, if
// that is not known to be in step with etcd.
func (s *Server) fromIndex(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if seconds, stale := s.registry.Age(); stale {
			w.Header().Set(api.HeaderStale, strconv.FormatInt(seconds, 10))
		}
		return h(w, r)
	}
}

func wrongMethod(methods []string) handler {
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", allow)
		return fail(api.CodeNotSupported, "%s is not supported on %s: only %s", r.Method, r.URL.Path, allow)
	}
}

func noSuchPath(_ http.ResponseWriter, r *http.Request) error {
	return fail(api.CodeNotFound, "there is nothing at %s: / lists what there is", r.URL.Path)
}
