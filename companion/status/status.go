// Package status is what the companion tells over HTTP, to this host only.
package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dcos/dcos-overlay/companion/agent"
)

// Handler serves a. A last pass older than stale means that the loop hangs.
func Handler(a *agent.Agent, stale time.Duration) http.Handler {
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
		pass, n := a.Last()
		switch age := time.Since(pass.At); {
		case n == 0:
			http.Error(w, "the first pass is not done yet", http.StatusServiceUnavailable)
		case age > stale:
			http.Error(w, fmt.Sprintf("no pass was done for %s", age.Round(time.Second)), http.StatusServiceUnavailable)
		case pass.Err != nil:
			http.Error(w, pass.Err.Error(), http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(w, "ok")
		}
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{a})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

type collector struct{ agent *agent.Agent }

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("dcos_overlay_companion_"+name, help, nil, nil)
}

// Describe sends nothing: the collector makes its metrics as it goes.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect tells of the last pass.
func (c collector) Collect(out chan<- prometheus.Metric) {
	pass, n := c.agent.Last()
	gauge := func(name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(desc(name, help), prometheus.GaugeValue, v)
	}
	counter := func(name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(desc(name, help), prometheus.CounterValue, v)
	}
	counter("passes_total", "Comparisons of the host with what it should be.", float64(n))
	counter("repairs_total", "Differences that were found and mended.", float64(pass.Repairs))
	gauge("peers", "Other agents that are known.", float64(pass.Peers))
	gauge("revision", "The coordinator's revision that this host is at.", float64(pass.Revision))
	gauge("stream_connected", "1 while the coordinator's stream is open and has caught up.", truth(pass.Connected))
	gauge("last_pass_ok", "1 when the last pass left the host as it should be.", truth(pass.Err == nil && n > 0))
	if n > 0 {
		gauge("last_pass_timestamp_seconds", "When the last pass ended, in seconds since the epoch.", float64(pass.At.UnixMilli())/1000)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
