package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/peerset"
)

const (
	// quiet is the least pause after a pass, so that a burst of events costs
	// one; maxRest the longest that an event has to wait for its pass.
	quiet   = 100 * time.Millisecond
	maxRest = time.Second
	// restShare makes the pause a multiple of what the pass took: on a host
	// that changes all the time at most a fifth of one core goes into passes.
	restShare = 4
	// retryMin is the pause after a pass that failed; it doubles up to the
	// interval while passes fail.
	retryMin = time.Second
	// lookEvery is how often the rules are looked at, of which legacy iptables
	// sends no events. A look takes two runs of iptables-save, 4 ms of one
	// core together, and 24 ms among 5,000 foreign rules.
	lookEvery = time.Second
	// lookShare makes the pause a multiple of what the look took: at most a
	// fiftieth of one core goes into looks.
	lookShare = 50
)

// Run works until ctx ends. What is set up then stays.
func (a *Agent) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	a.reporter, a.release = newReporter(a), a.giveBack
	wg.Go(func() { a.reporter.run(ctx) })

	failures, repairing := 0, 0
	why := "the start"
	for {
		a.Log.Debug("pass", "because", why)
		last := a.pass(ctx)
		a.Alive()
		failures = streak(failures, last.Trouble() != nil)
		// Who repairs again and again is at odds with another program, and
		// must not run a race with it.
		repairing = streak(repairing, last.Repairs > 0)
		news, ok := a.settle(ctx, rest(last.Took, repairing))
		if !ok {
			return
		}
		if why = "the coordinator"; news {
			continue
		}
		longest := pause(failures, a.Interval)
		if a.draining() {
			longest = min(longest, drainEvery)
		}
		if why, ok = a.wait(ctx, longest); !ok {
			return
		}
	}
}

// settle is the pause after a pass; ok is false when ctx ends. news tells that
// the coordinator has some, which only fixed addresses that move don't let wait.
func (a *Agent) settle(ctx context.Context, pause time.Duration) (news, ok bool) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	changed := a.Follower.Changed()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return news, false
		case <-timer.C:
			return news, true
		case <-changed:
			a.claim.next = time.Time{} // somebody answers
			news = true
			a.followMoves(ctx)
			changed, again = nil, time.After(moveEvery)
		case <-again:
			changed, again = a.Follower.Changed(), nil
		}
	}
}

func streak(n int, goesOn bool) int {
	if goesOn {
		return n + 1
	}
	return 0
}

// rest is the pause in which events gather, after a pass that took that long
// and was that many in a row to repair something.
func rest(took time.Duration, repairing int) time.Duration {
	d := max(quiet, restShare*took)
	for range min(repairing-1, 10) {
		d = min(2*d, maxRest)
	}
	return min(d, maxRest)
}

// pause is the longest time to the next pass, after that many in a row that
// failed.
func pause(failures int, interval time.Duration) time.Duration {
	if failures == 0 {
		return interval
	}
	d := retryMin
	for range min(failures-1, 10) {
		d *= 2
	}
	return min(d, interval)
}

// wait waits for a reason for the next pass; false when ctx ends.
func (a *Agent) wait(ctx context.Context, longest time.Duration) (why string, ok bool) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	look := time.NewTimer(lookEvery)
	defer look.Stop()
	events := a.Events
	for {
		select {
		case <-ctx.Done():
			return "", false
		case <-timer.C:
			return "time", true
		case _, open := <-events:
			if open {
				return "Docker", true
			}
			events = nil // it ends with ctx
		case <-a.Follower.Changed():
			a.claim.next = time.Time{} // somebody answers
			return "the coordinator", true
		case <-a.reporter.forgotten:
			a.claim.done = false
			return "the coordinator does not know this agent", true
		case <-a.reporter.returned:
			a.claim.done, a.claim.next = false, time.Time{}
			return "the coordinator is back, and may have given a fixed address of ours away", true
		case what := <-a.Watch.Changed():
			return what, true
		case <-look.C:
			began := time.Now()
			if why := a.look(ctx); why != "" {
				return why, true
			}
			a.Alive()
			look.Reset(max(lookEvery, lookShare*time.Since(began)))
		}
	}
}

// look says what is wrong with the rules, and with the set of addresses that
// one of them goes by, of which no kernel sends events. While something else is
// wrong already, the next pass comes soon enough.
func (a *Agent) look(ctx context.Context) string {
	if a.known() == nil || a.Status().Last.Err != nil {
		return ""
	}
	problems, err := firewall.New().Check(ctx, a.rules)
	// The next pass meets an error, and tells of it.
	if err == nil && len(problems) > 0 {
		return problems[0]
	}
	if a.filtered == 0 {
		return ""
	}
	set := peerset.Of(a.rules.Filter == firewall.FilterIPv6)
	if n, err := set.Size(); err == nil && n != a.filtered {
		return fmt.Sprintf("ipset %s holds %d addresses, not %d", set.Name, n, a.filtered)
	}
	return ""
}
