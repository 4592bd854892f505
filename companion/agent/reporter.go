package agent

import (
	"context"
	"net/netip"
	"reflect"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
)

// reportTimeout bounds one report.
const reportTimeout = 10 * time.Second

// reporter tells the coordinator of the overlays' states: at once when they
// changed, and every interval as a heartbeat. It runs beside the loop, so that
// no repair waits for a coordinator that does not answer.
type reporter struct {
	agent *Agent
	// latest holds the newest report that is not taken yet.
	latest chan report
	// forgotten yields when the coordinator has no record of this agent.
	forgotten chan struct{}
	// returned yields when a report got through after others had not, and this
	// agent has fixed addresses: they may be another's by now.
	returned chan struct{}
	clients  clients
}

type report struct {
	ip  netip.Addr
	req api.StatusRequest
	// claims is how many claims were answered: the record that a claim makes
	// anew has no states yet.
	claims int
}

func newReporter(a *Agent) *reporter {
	return &reporter{agent: a, latest: make(chan report, 1), forgotten: make(chan struct{}, 1), returned: make(chan struct{}, 1)}
}

// tell hands over how this host is. Only one goroutine may call it.
func (r *reporter) tell(ip netip.Addr, claims int, req api.StatusRequest) {
	select {
	case <-r.latest: // not sent, and old now
	default:
	}
	r.latest <- report{ip, req, claims}
}

func (r *reporter) run(ctx context.Context) {
	defer r.clients.close()
	var now, sent report
	var failures int
	var said said
	timer := time.NewTimer(r.agent.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case now = <-r.latest:
			// While it fails, the timer says when to try again.
			if failures > 0 || reflect.DeepEqual(now, sent) {
				continue
			}
		}
		if !now.ip.IsValid() {
			timer.Reset(r.agent.Interval)
			continue
		}
		err := r.send(ctx, now)
		if err == nil {
			if failures > 0 && r.agent.hasFixed() {
				signal(r.returned)
			}
			sent, failures = now, 0
		} else {
			failures++
		}
		if text := errorText(err); said.news("report", text) && err != nil && ctx.Err() == nil {
			r.agent.Log.Warn("the state of this host is not reported", "error", err)
		}
		timer.Reset(r.agent.hurry(failures, pause(failures, r.agent.Interval)))
	}
}

// signal makes c yield, unless it does already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *reporter) send(ctx context.Context, now report) error {
	client, err := r.clients.to(r.agent.Host, now.ip)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	err = client.Report(ctx, now.ip, now.req)
	if apiclient.IsCode(err, api.CodeNotFound) {
		signal(r.forgotten)
	}
	return err
}
