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
	// asked is true of every report.
	asked bool
	// status is nil where there was no answer, or one that refuses to say.
	status *clientv3.StatusResponse
	// serves is whether the member answered and has a leader.
	serves bool
}

// attend keeps the client away from members that can't serve, until they can,
// and the health up to date. Each member is asked by itself, so that one that
// hangs keeps nobody from hearing of the others.
func (s *Store) attend(ctx context.Context) {
	type answer struct {
		member int
		report report
	}
	answers := make(chan answer)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, e := range s.endpoints {
		wg.Go(func() {
			s.askAgain(ctx, e, func(r report) {
				select {
				case answers <- answer{i, r}:
				case <-ctx.Done():
				}
			})
		})
	}
	latest := make([]report, len(s.endpoints))
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-answers:
			latest[a.member] = a.report
		}
		if slices.ContainsFunc(latest, func(r report) bool { return !r.asked }) {
			continue
		}
		led := s.health.learn(latest, s.log)
		if s.server != nil {
			continue
		}
		s.use(usable(latest), led)
		s.trouble.clarify(ctx)
	}
}

// askAgain asks the member at endpoint again and again until ctx ends.
func (s *Store) askAgain(ctx context.Context, endpoint string, tell func(report)) {
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
		if r := probe(ctx, s.prober, []string{endpoint}); ctx.Err() == nil {
			tell(r[0])
		}
	}
}

// usable are the endpoints of those that can serve; while there is none, of
// those that answer, which will be the first to; else of all.
func usable(reports []report) []string {
	if out := serving(reports); len(out) > 0 {
		return out
	}
	var answering, all []string
	for _, r := range reports {
		all = append(all, r.endpoint)
		if r.status != nil {
			answering = append(answering, r.endpoint)
		}
	}
	if len(answering) > 0 {
		return answering
	}
	return all
}

// use makes the client ask those members alone. What was asked before of others
// is asked anew, and so is all when there is a new leader.
func (s *Store) use(members []string, newLeader bool) {
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
			out[i] = report{endpoint: e, asked: true, status: status}
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
