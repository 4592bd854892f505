package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dcos/dcos-overlay/coordinator/registry"
)

// namespace begins the name of every metric.
const namespace = "dcos_overlay_coordinator"

// metrics are this coordinator's own, apart from those that etcd puts into
// Prometheus's default registry.
type metrics struct {
	registry *prometheus.Registry
	claims   *prometheus.CounterVec
	latency  prometheus.Histogram
}

func newMetrics(r *registry.Registry) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "claims_total",
			Help: "Claims by result: ok, or the code of the error.",
		}, []string{"result"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "claim_duration_seconds",
			Help:    "Time from a claim to its answer, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}),
	}
	gauge := func(name, help string, value func(registry.Counts) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help},
			func() float64 { return value(r.Counts()) })
	}
	m.registry.MustRegister(m.claims, m.latency,
		gauge("agents", "Agents that hold a lease.", func(c registry.Counts) float64 { return float64(c.Agents) }),
		gauge("agents_alive", "Agents that have reported lately.", func(c registry.Counts) float64 { return float64(c.Alive) }),
		gauge("watchers", "Streams of agents that are open.", func(c registry.Counts) float64 { return float64(c.Watchers) }),
		gauge("index_revision", "etcd's revision that the index has seen.", func(c registry.Counts) float64 { return float64(c.Revision) }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// claimed counts one claim that took d and ended with err.
func (m *metrics) claimed(d time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = string(answer(err).Code)
	}
	m.claims.WithLabelValues(result).Inc()
	m.latency.Observe(d.Seconds())
}
