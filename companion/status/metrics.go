package status

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// metrics tells of the host as of the last pass.
type metrics struct {
	agent   Agent
	cleaner Cleaner
}

// Describe sends nothing: the collector makes its metrics as it goes, for the
// overlays come and go.
func (metrics) Describe(chan<- *prometheus.Desc) {}

// sink takes the metrics of one collection.
type sink chan<- prometheus.Metric

func (s sink) put(typ prometheus.ValueType, v float64, name, help string, labels ...string) {
	var names, values []string
	for pair := range slices.Chunk(labels, 2) {
		names, values = append(names, pair[0]), append(values, pair[1])
	}
	desc := prometheus.NewDesc("dcos_overlay_companion_"+name, help, names, nil)
	s <- prometheus.MustNewConstMetric(desc, typ, v, values...)
}

func (s sink) gauge(v float64, name, help string, labels ...string) {
	s.put(prometheus.GaugeValue, v, name, help, labels...)
}

func (s sink) counter(v float64, name, help string, labels ...string) {
	s.put(prometheus.CounterValue, v, name, help, labels...)
}

// Collect tells of the last pass.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	s, status := sink(out), m.agent.Status()
	s.counter(float64(status.Passes), "passes_total", "Comparisons of the host with what it should be.")
	for _, k := range host.Kinds() {
		s.counter(float64(status.Repairs[k]), "repairs_total", "Differences that were found and mended, by kind.", "kind", string(k))
	}
	last := status.Last
	s.gauge(float64(last.Peers), "peers", "Other agents that are known.")
	s.gauge(float64(last.Revision), "revision", "The coordinator's revision that this host is at.")
	s.gauge(truth(last.Connected), "stream_connected", "1 while the coordinator's stream is open and has caught up.")
	s.gauge(truth(!status.SyncedAt.IsZero()), "stream_synced", "1 once the stream has caught up since the start: all agents are known.")
	if !status.SyncedAt.IsZero() {
		s.gauge(seconds(status.SyncedAt), "last_sync_timestamp_seconds", "When the stream was last seen open and caught up, in seconds since the epoch.")
	}
	s.gauge(truth(last.Trouble() == nil && status.Passes > 0), "last_pass_ok", "1 when the last pass left the host as it should be.")
	if status.Passes > 0 {
		s.gauge(seconds(last.At), "last_pass_timestamp_seconds", "When the last pass ended, in seconds since the epoch.")
		s.gauge(last.Took.Seconds(), "last_pass_duration_seconds", "How long the last pass took, in seconds.")
	}
	if status.WantsDocker {
		s.gauge(truth(status.DockerUp), "docker_up", "1 when the Docker Engine answered the last pass.")
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		s.gauge(truth(slices.Contains(status.Crowded, family)), "neighbour_table_small",
			"1 when gc_thresh3 is less than the number of peers.", "family", family)
	}
	s.gauge(float64(len(status.Warnings)), "warnings", "Things that may be trouble on this host, and are no error; /healthz names them.")
	s.gauge(float64(m.cleaner.Unknown()), "reservations_unknown", "Reservations whose container is not on record: they are never freed without a DEL.")
	for _, o := range status.Overlays {
		s.overlay(o)
	}
}

func (s sink) overlay(o api.OverlayStatus) {
	s.gauge(truth(o.State.Status == lease.StatusOK), "overlay_ok", "1 when the overlay is as it should be on this host.", "overlay", o.Name)
	for _, c := range []struct {
		containerizer string
		usage         *api.Usage
	}{{"mesos", o.Addresses.Mesos}, {"docker", o.Addresses.Docker}} {
		if c.usage == nil {
			continue
		}
		for state, n := range map[string]int64{"used": c.usage.Used, "free": c.usage.Free} {
			s.gauge(float64(n), "addresses", "Addresses of this host's part of an overlay.",
				"overlay", o.Name, "containerizer", c.containerizer, "state", state)
		}
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
