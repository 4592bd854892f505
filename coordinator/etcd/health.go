package etcd

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Health is how etcd is, by its members' latest answers.
type Health struct {
	// Members is how many there are, Serving how many of them can serve.
	Members, Serving int
	// LeaderChanges counts those since the start.
	LeaderChanges int
	// Alarms are etcd's words for what is wrong, such as NOSPACE, sorted.
	Alarms []string
	// Bytes is the size of the largest member's database, InUse what of it is
	// not free, and Quota how large it may become; 0 where no member says.
	Bytes, InUse, Quota int64
}

// health is a Health in the making.
type health struct {
	mu sync.Mutex
	Health
	leader, term uint64
}

// learn takes in a round of answers, and logs which alarms are new and which
// are over. It tells whether there is another leader than before.
func (h *health) learn(reports []report, log *slog.Logger) (newLeader bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Members, h.Serving = len(reports), len(serving(reports))
	alarms, answers := map[string]bool{}, 0
	var bytes, inUse, quota int64
	for _, r := range reports {
		if r.status == nil {
			continue
		}
		answers++
		for _, a := range alarmsIn(r.status.Errors) {
			alarms[a] = true
		}
		if r.status.DbSize > bytes {
			bytes, inUse, quota = r.status.DbSize, r.status.DbSizeInUse, r.status.DbSizeQuota
		}
		// A member that lags speaks of an earlier term.
		if r.status.Leader != 0 && r.status.RaftTerm >= h.term {
			if h.leader != 0 && h.leader != r.status.Leader {
				h.LeaderChanges++
				newLeader = true
			}
			h.leader, h.term = r.status.Leader, r.status.RaftTerm
		}
	}
	if answers == 0 {
		return false // What was known stands.
	}
	h.Bytes, h.InUse, h.Quota = bytes, inUse, quota
	now := slices.Sorted(maps.Keys(alarms))
	for _, a := range now {
		if !slices.Contains(h.Alarms, a) {
			log.Error("etcd has an alarm", "alarm", a, "meaning", alarmText(a))
		}
	}
	for _, a := range h.Alarms {
		if !alarms[a] {
			log.Info("etcd's alarm is over", "alarm", a)
		}
	}
	h.Alarms = now
	return newLeader
}

// alarmsIn finds the alarms in the errors that a member's status lists, each
// of which is an alarm as text or something else.
func alarmsIn(errs []string) []string {
	var out []string
	for number, name := range etcdserverpb.AlarmType_name {
		if number == int32(etcdserverpb.AlarmType_NONE) {
			continue
		}
		if slices.ContainsFunc(errs, func(e string) bool { return strings.Contains(e, "alarm:"+name) }) {
			out = append(out, name)
		}
	}
	return out
}

// alarmText says what an alarm means and what to do.
func alarmText(name string) string {
	switch name {
	case etcdserverpb.AlarmType_NOSPACE.String():
		return "etcd has alarm NOSPACE: its database is full, and it takes no changes: compact and defragment it (etcdctl compact, etcdctl defrag) or raise its --quota-backend-bytes, then etcdctl alarm disarm"
	case etcdserverpb.AlarmType_CORRUPT.String():
		return "etcd has alarm CORRUPT: its members differ in what they hold, and it takes no changes: replace the member that is wrong, then etcdctl alarm disarm"
	}
	return "etcd has alarm " + name + ": see etcdctl alarm list"
}

// Health tells how etcd is.
func (s *Store) Health() Health {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	h := s.health.Health
	h.Alarms = slices.Clone(h.Alarms)
	return h
}

// Trouble is why etcd takes no changes, in one line and with what to do; nil
// while nothing is known to be wrong.
func (s *Store) Trouble() error {
	if alarms := s.Health().Alarms; len(alarms) > 0 {
		return errors.New(alarmText(alarms[0]))
	}
	if s.trouble == nil {
		return nil
	}
	return s.trouble.error()
}
