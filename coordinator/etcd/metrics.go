package etcd

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// namespace begins the name of every metric of the coordinator's.
const namespace = "dcos_overlay_coordinator_etcd_"

// Collector makes metrics of a Store's health.
type Collector struct{ *Store }

// Describe tells nothing beforehand.
func (Collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends what there is now.
func (c Collector) Collect(out chan<- prometheus.Metric) {
	h := c.Health()
	send := func(name, help string, kind prometheus.ValueType, value int64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(namespace+name, help, nil, nil), kind, float64(value))
	}
	send("members", "Members of etcd that are configured.", prometheus.GaugeValue, int64(h.Members))
	send("members_serving", "Members of etcd that answer and have a leader.", prometheus.GaugeValue, int64(h.Serving))
	send("leader_changes_total", "How often etcd had another leader than before.", prometheus.CounterValue, int64(h.LeaderChanges))
	send("database_bytes", "Size of etcd's database.", prometheus.GaugeValue, h.Bytes)
	send("database_used_bytes", "What of etcd's database is in use.", prometheus.GaugeValue, h.InUse)
	send("quota_bytes", "How large etcd's database may become.", prometheus.GaugeValue, h.Quota)
	alarm := prometheus.NewDesc(namespace+"alarm", "1 while etcd has that alarm.", []string{"alarm"}, nil)
	for _, a := range []etcdserverpb.AlarmType{etcdserverpb.AlarmType_NOSPACE, etcdserverpb.AlarmType_CORRUPT} {
		value := 0.0
		if slices.Contains(h.Alarms, a.String()) {
			value = 1
		}
		out <- prometheus.MustNewConstMetric(alarm, prometheus.GaugeValue, value, a.String())
	}
}
