package mesos

import "github.com/prometheus/client_golang/prometheus"

// namespace begins the name of every metric of the coordinator's.
const namespace = "dcos_overlay_coordinator_mesos_"

// Describe tells nothing beforehand.
func (*Follower) Describe(chan<- *prometheus.Desc) {}

// Collect sends what there is now.
func (f *Follower) Collect(out chan<- prometheus.Metric) {
	f.mu.Lock()
	connected, agents, recovering := 0, 0, 0
	if f.state != nil {
		connected, agents, recovering = 1, len(f.state.agents), len(f.state.recovered)
	}
	events, breaks := f.events, f.breaks
	f.mu.Unlock()
	send := func(name, help string, kind prometheus.ValueType, value int) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(namespace+name, help, nil, nil), kind, float64(value))
	}
	send("connected", "1 while the stream of a Mesos master is followed.", prometheus.GaugeValue, connected)
	send("agents", "Agents that are registered with Mesos.", prometheus.GaugeValue, agents)
	send("recovering_agents", "Agents that have not come back to a new master yet.", prometheus.GaugeValue, recovering)
	send("events_total", "Events of Mesos masters.", prometheus.CounterValue, events)
	send("breaks_total", "Streams of Mesos masters that ended.", prometheus.CounterValue, breaks)
}
