package server

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dcos/dcos-overlay/internal/api"
)

const (
	// DefaultMaxConnections fits 65,536 agents with little to spare: each has
	// a stream, and now and then a call beside it.
	DefaultMaxConnections = 100_000
	// DefaultMaxConnectionsPerHost is many times what a host's companion and
	// plugins open, and leaves room for agents behind one address.
	DefaultMaxConnectionsPerHost = 256
	// DefaultMaxStreams fits 65,536 agents, and pages that look on.
	DefaultMaxStreams = 70_000
	// busyRetry is when a caller that was one too many may ask again.
	busyRetry = 10 * time.Second
)

// timeouts bound how long a caller may take.
type timeouts struct {
	// header is for a request's header, and for a TLS handshake; read for the
	// whole request.
	header, read time.Duration
	// write is for one answer, or one batch of a stream.
	write time.Duration
	// idle is between two calls on one connection.
	idle time.Duration
}

// places counts what is open of something that is bounded.
type places struct {
	max           int64
	open, refused atomic.Int64
}

func (p *places) enter() bool {
	if p.open.Add(1) > p.max {
		p.open.Add(-1)
		p.refused.Add(1)
		return false
	}
	return true
}

func (p *places) leave() { p.open.Add(-1) }

// enterStream takes a place for a stream, to be left by s.streams.leave.
func (s *Server) enterStream() error {
	if s.streams.enter() {
		return nil
	}
	return fail(api.CodeBusy, "there are %d streams, which --max-streams allows: try another coordinator, or this one in %s", s.streams.max, busyRetry)
}

func setRetryAfter(h http.Header, code api.Code) {
	if code == api.CodeBusy {
		h.Set("Retry-After", strconv.Itoa(int(busyRetry.Seconds())))
	}
}

// tracked knows whether an answer has begun.
type tracked struct {
	http.ResponseWriter
	begun bool
}

func (t *tracked) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracked) Write(b []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// rescue, deferred, answers 500 where the call r panicked.
func (s *Server) rescue(w *tracked, r *http.Request) {
	cause := recover()
	switch cause {
	case nil:
		return
	case http.ErrAbortHandler:
		panic(cause)
	}
	s.metrics.panics.Inc()
	s.log.Error("a call panicked, which is a mistake in the coordinator: please report it", "method", r.Method, "path", r.URL.Path,
		"caller", r.RemoteAddr, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	if w.begun {
		// The caller must not take half an answer for the whole.
		panic(http.ErrAbortHandler)
	}
	e := fail(api.CodeInternal, "the coordinator failed: its log says why")
	s.write(w, statusOf(e.Code), api.ErrorBody{Error: e})
}

// boundMetrics count what is bounded.
func (s *Server) boundMetrics() []prometheus.Collector {
	refused := func(reason string, count func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: namespace, Name: "refused_total", ConstLabels: prometheus.Labels{"reason": reason},
			Help: "What was too much: connections in all, connections of one host, streams.",
		}, count)
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "connections", Help: "Connections that are open.",
		}, func() float64 { open, _ := s.connections.Counts(); return float64(open) }),
		refused("connections", func() float64 { _, r := s.connections.Counts(); return float64(r.Total) }),
		refused("host", func() float64 { _, r := s.connections.Counts(); return float64(r.Host) }),
		refused("streams", func() float64 { return float64(s.streams.refused.Load()) }),
	}
}
