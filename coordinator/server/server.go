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

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
)

const (
	// maxBody bounds a request's body in bytes: a status with a thousand
	// overlays has a tenth of it.
	maxBody = 1 << 20
	// maxHeader bounds a request's header in bytes.
	maxHeader = 64 << 10
	// headerTimeout and readTimeout bound how long a request may take to come.
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
}

// Server answers HTTP.
type Server struct {
	registry *registry.Registry
	log      *slog.Logger
	ping     time.Duration
	local    func() ([]netip.Addr, error)
	metrics  *metrics
	handler  http.Handler
	// stopping ends the streams, which would never end by themselves.
	stopping context.Context
	stop     context.CancelFunc
}

// New makes a Server.
func New(o Options) *Server {
	s := &Server{registry: o.Registry, log: o.Log, ping: o.Ping, local: o.LocalAddrs, metrics: newMetrics(o.Registry)}
	if s.ping == 0 {
		s.ping = DefaultPing
	}
	if s.local == nil {
		s.local = interfaceAddrs
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
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
			}
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
	// read says that the answer comes from the index, and how old that is.
	read bool
	// limit bounds the body in bytes; 0 means maxBody.
	limit int64
}

func (s *Server) routes() http.Handler {
	routes := []route{
		{method: http.MethodGet, path: api.PathState, handler: s.getState, read: true},
		{method: http.MethodPost, path: api.PathAgentsDelete, handler: s.deleteAgents},
		{method: http.MethodGet, path: api.PathAgents, handler: s.getAgents, read: true},
		{method: http.MethodGet, path: api.PathAgents + "/{ip}", handler: s.getAgent, read: true},
		{method: http.MethodPut, path: api.PathLease, handler: s.claim},
		{method: http.MethodDelete, path: api.PathLease, handler: s.release},
		{method: http.MethodPut, path: api.PathStatus, handler: s.status},
		{method: http.MethodGet, path: api.PathOverlays, handler: s.getOverlays, read: true},
		{method: http.MethodGet, path: pathOverlay, handler: s.getOverlay, read: true},
		{method: http.MethodPut, path: pathOverlay, handler: s.putOverlay},
		{method: http.MethodDelete, path: pathOverlay, handler: s.deleteOverlay},
		{method: http.MethodPost, path: api.PathImport, handler: s.importState, limit: maxImport},
		{method: http.MethodGet, path: "/healthz", handler: s.healthz},
		{method: http.MethodGet, path: "/readyz", handler: s.readyz},
		{method: http.MethodGet, path: "/{$}", handler: s.page},
	}
	mux := http.NewServeMux()
	allowed := map[string][]string{"/metrics": {http.MethodGet}}
	for _, r := range routes {
		h := r.handler
		if r.read {
			h = s.fromIndex(h)
		}
		mux.Handle(r.method+" "+r.path, s.handle(h, cmp.Or(r.limit, maxBody)))
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
