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
	etcd     *prometheus.HistogramVec
	errors   *prometheus.CounterVec
	panics   prometheus.Counter
}

// buckets reach from half a millisecond to 8 seconds.
func buckets() []float64 { return prometheus.ExponentialBuckets(0.0005, 2, 15) }

func newMetrics(r *registry.Registry) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "claims_total",
			Help: "Claims by result: ok, or the code of the error.",
		}, []string{"result"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "claim_duration_seconds",
			Help: "Time from a claim to its answer, in seconds.", Buckets: buckets(),
		}),
		etcd: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "etcd_duration_seconds",
			Help: "Time of a call of etcd, in seconds.", Buckets: buckets(),
		}, []string{"op"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "etcd_errors_total",
			Help: "Calls of etcd that failed.",
		}, []string{"op"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "panics_total",
			Help: "Calls that failed by a mistake in the coordinator.",
		}),
	}
	m.registry.MustRegister(m.claims, m.latency, m.etcd, m.errors, m.panics, &indexCollector{r},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	r.Observe(m.called)
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

// called counts one call of etcd.
func (m *metrics) called(op string, took time.Duration, err error) {
	m.etcd.WithLabelValues(op).Observe(took.Seconds())
	if err != nil {
		m.errors.WithLabelValues(op).Inc()
	}
}

// indexCollector makes metrics of what the index holds at the time of asking.
type indexCollector struct{ registry *registry.Registry }

// Describe tells nothing beforehand: the overlays are not known yet.
func (*indexCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends what there is now.
func (c *indexCollector) Collect(out chan<- prometheus.Metric) {
	counts := c.registry.Counts()
	for _, g := range []struct {
		name, help string
		kind       prometheus.ValueType
		value      float64
	}{
		{"agents", "Agents that hold a lease.", prometheus.GaugeValue, float64(counts.Agents)},
		{"agents_alive", "Agents that have reported lately.", prometheus.GaugeValue, float64(counts.Alive)},
		{"agents_silent", "Agents that have not.", prometheus.GaugeValue, float64(counts.Silent)},
		{"watchers", "Streams of agents that are open.", prometheus.GaugeValue, float64(counts.Watchers)},
		{"agents_gone", "Agents that Mesos had and has no longer.", prometheus.GaugeValue, float64(counts.Gone)},
		{"watches_lost_total", "Watches of etcd that broke.", prometheus.CounterValue, float64(counts.LostWatches)},
		{"conflicts_total", "Transactions that lost a race and were tried again.", prometheus.CounterValue, float64(counts.Conflicts)},
		{"index_revision", "etcd's revision that the index has seen.", prometheus.GaugeValue, float64(counts.Revision)},
		{"etcd_revision", "etcd's revision as last heard.", prometheus.GaugeValue, float64(counts.EtcdRevision)},
		{"index_lag_seconds", "For how long the index has not been known to be in step with etcd; 0 when it is.", prometheus.GaugeValue, float64(counts.Lag)},
	} {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(namespace+"_"+g.name, g.help, nil, nil), g.kind, g.value)
	}
	subnets := prometheus.NewDesc(namespace+"_subnets", "Agent subnets of an overlay by what they are: free, leased or resting.", []string{"overlay", "family", "state"}, nil)
	vteps := prometheus.NewDesc(namespace+"_vteps", "VTEP addresses by what they are: free, leased or resting.", []string{"family", "state"}, nil)
	for _, p := range c.registry.Pools() {
		desc, labels := vteps, []string{family(p.IPv6)}
		if p.Overlay != "" {
			desc, labels = subnets, []string{p.Overlay, family(p.IPv6)}
		}
		for state, n := range map[string]float64{"free": p.Free, "leased": float64(p.Leased), "resting": float64(p.Resting)} {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, n, append(labels[:len(labels):len(labels)], state)...)
		}
	}
}

func family(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}
