package etcd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// probeInterval and probeTimeout find a member that hangs, or that has
	// lost the others, within a second. gRPC's keepalives take 13 s
	// for the first, for it allows none more often than every 10 s, and never
	// see the second; and each member gets its share of the calls until then.
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 500 * time.Millisecond
)

// report is a member's answer to a probe.
type report struct {
	endpoint string
	// status is nil where there was no answer, or one that refuses to say.
	status *clientv3.StatusResponse
	// serves is whether the member answered and has a leader.
	serves bool
}

// attend keeps the client away from members that can't serve, until they can,
// and the health up to date.
func (s *Store) attend(ctx context.Context) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if s.stopped() {
			return
		}
		reports := probe(ctx, s.Client, s.endpoints)
		if ctx.Err() != nil {
			return
		}
		led := s.health.learn(reports, s.log)
		if s.server != nil {
			continue
		}
		s.use(serving(reports), led)
		s.trouble.clarify(ctx)
	}
}

// use makes the client ask those members alone. What was asked before of others
// is asked anew, and so is all when there is a new leader.
func (s *Store) use(members []string, newLeader bool) {
	if len(members) == 0 {
		// Nobody knows then which one will be the first to come back.
		members = s.endpoints
	}
	before := s.Client.Endpoints()
	if !slices.Equal(members, before) {
		s.Client.SetEndpoints(members...)
	}
	left := slices.ContainsFunc(before, func(m string) bool { return !slices.Contains(members, m) })
	if left || newLeader {
		s.news.tell()
	}
	if left {
		select {
		case s.left <- struct{}{}:
		default: // That one left is said already.
		}
	}
}

// Left is told when a member is asked no more: a watch may be at it. Of the
// etcd inside this process it is never told anything.
func (s *Store) Left() <-chan struct{} { return s.left }

// probe asks all of endpoints at once. An answer that refuses to say is an
// answer.
func probe(ctx context.Context, client *clientv3.Client, endpoints []string) []report {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	out := make([]report, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() {
			status, err := client.Status(ctx, e)
			out[i] = report{endpoint: e, status: status}
			if err != nil {
				out[i].serves = ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded)
				return
			}
			out[i].serves = status.Leader != 0
		})
	}
	wg.Wait()
	return out
}

// serving are the endpoints of those that can serve.
func serving(reports []report) []string {
	var out []string
	for _, r := range reports {
		if r.serves {
			out = append(out, r.endpoint)
		}
	}
	return out
}
