// Package status is what the companion tells over HTTP, to this host only.
package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dcos/dcos-overlay/companion/agent"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// Agent is who is asked; *agent.Agent is one.
type Agent interface {
	Entry() (masterstate.Agent, bool)
	Status() agent.Status
}

// Cleaner frees leaked addresses; *leaks.Cleaner is one.
type Cleaner interface{ Unknown() int }

// Handler serves a, and what c says. A last pass older than stale means that
// the loop hangs.
func Handler(a Agent, c Cleaner, stale time.Duration) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /overlay-agent/overlay", func(w http.ResponseWriter, r *http.Request) {
		entry, ok := a.Entry()
		if !ok {
			http.Error(w, "this agent holds no lease yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// An error here is the caller gone.
		_ = json.NewEncoder(w).Encode(entry)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		status := a.Status()
		if trouble := trouble(status, stale); trouble != "" {
			http.Error(w, trouble, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
		for _, n := range notes(status) {
			fmt.Fprintln(w, n)
		}
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics{a, c},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// trouble is why this host is not as it should be, a line for each reason, or
// nothing.
func trouble(s agent.Status, stale time.Duration) string {
	age := time.Since(s.Last.At)
	switch {
	case s.Passes == 0:
		return "the first pass is not done yet"
	case age > stale:
		return fmt.Sprintf("no pass was done for %s", age.Round(time.Second))
	case s.Last.Err != nil:
		return s.Last.Err.Error()
	}
	return ""
}

// notes are what an operator wants to know of a host that is right as a whole.
func notes(s agent.Status) []string {
	var out []string
	if s.Last.Overlays != nil {
		out = append(out, "but "+s.Last.Overlays.Error())
	}
	switch {
	case s.Last.Connected:
	case s.SyncedAt.IsZero():
		out = append(out, "the coordinator's stream was not open since the start; what is set up stays")
	default:
		out = append(out, fmt.Sprintf("the coordinator's stream is away since about %s; what is set up stays", s.SyncedAt.Format(time.RFC3339)))
	}
	out = append(out, s.Draining...)
	out = append(out, s.Warnings...)
	if len(s.Crowded) > 0 {
		out = append(out, fmt.Sprintf("the neighbour table (%s) may be too small for %d peers: raise gc_thresh3", strings.Join(s.Crowded, ", "), s.Last.Peers))
	}
	return out
}
