package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// TestReaders: whatever befalls a reader of the stream, it ends with what one
// knows that begins anew.
func TestReaders(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client, err := c.etcd()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	t.Run("OfOneCoordinatorAfterTheOther", func(t *testing.T) { c.changeCoordinators(ctx, t) })
	t.Run("ThatFallBehind", func(t *testing.T) { c.fallBehind(ctx, t, client) })
	t.Run("AfterACompaction", func(t *testing.T) { c.compact(ctx, t, client) })
}

// churn has every client do some things at the coordinators targets.
func (c *cluster) churn(t *testing.T, times int, targets ...int) {
	t.Helper()
	var wg sync.WaitGroup
	rec := &recorder{}
	for n := range agents {
		wg.Go(func() {
			client := newClient(c, n, uint64(time.Now().UnixNano()))
			defer client.close()
			client.targets = targets
			for range times {
				ops := client.next()
				client.ask(ops)
				client.learn(ops[0])
				rec.add(ops...)
			}
			// Whatever came before, there is something in the end.
			last := []op{{kind: opClaim, agent: n, ip: client.at, overlays: []string{"blue"}}}
			client.ask(last)
			rec.add(last...)
		})
	}
	wg.Wait()
	doneOps := 0
	for _, o := range rec.ops {
		if o.outcome == done {
			doneOps++
		}
	}
	if doneOps < agents {
		t.Errorf("only %d things of %d were done: this shows nothing", doneOps, len(rec.ops))
	}
}

func (c *cluster) changeCoordinators(ctx context.Context, t *testing.T) {
	c.churn(t, 2, 0, 1, 2)
	r := newReader(c.clients)
	for i := range 2 * nodes {
		if err := r.catchUp(ctx, c.hosts[i%nodes].CoordinatorURL()); err != nil {
			t.Fatal(err)
		}
		c.churn(t, 2, 0, 1, 2)
	}
	if err := r.catchUp(ctx, c.hosts[0].CoordinatorURL()); err != nil {
		t.Fatal(err)
	}
	if err := r.agrees(ctx, c); err != nil {
		t.Error(err)
	}
	if n := r.count(api.EventSnapshot); n != 1 && !c.relisted() {
		t.Errorf("%d snapshots: a reader that has missed nothing gets one, its first", n)
	}
	if r.count(api.EventDelete) == 0 {
		t.Error("nothing was deleted: this shows nothing")
	}
}

// relisted tells whether a coordinator had to begin anew: on a busy machine a
// member may miss its leader's heartbeats, and then no reader can resume.
func (c *cluster) relisted() bool {
	for _, d := range c.coordinators {
		if strings.Contains(d.proc.Log(), "watch of etcd broke") {
			return true
		}
	}
	return false
}

const (
	// flood is more events than a coordinator keeps for slow readers (16384).
	flood = 20000
	// textLength of the agents' states, in bytes, makes the flood more than
	// the sockets in between can hold.
	textLength = 400
)

// fallBehind stalls a reader while its coordinator hears of more than it
// keeps. So many reports by agents would take a minute, so they are written as
// another coordinator would write them.
func (c *cluster) fallBehind(ctx context.Context, t *testing.T, client *clientv3.Client) {
	c.churn(t, 3, 0, 1, 2)
	r := newReader(c.clients)
	r.http = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := c.clients.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return conn, conn.(*net.TCPConn).SetReadBuffer(4096)
		},
	}}
	url := c.hosts[0].CoordinatorURL()
	stalled, err := r.open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.agentsAt(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(ctx, client, list.Agents, flood/len(list.Agents)); err != nil {
		t.Fatal(err)
	}
	c.churn(t, 3, 0, 1, 2)

	if err := r.read(stalled, nil); err == nil || ctx.Err() != nil {
		t.Fatalf("the stream goes on: %v", err)
	}
	if n := r.count(api.EventSet); n >= flood {
		t.Errorf("the reader has all %d events: it was not too slow", n)
	}
	if err := r.catchUp(ctx, url); err != nil {
		t.Fatal(err)
	}
	if err := r.agrees(ctx, c); err != nil {
		t.Error(err)
	}
	if n := r.count(api.EventSnapshot); n != 2 {
		t.Errorf("%d snapshots: a reader that has fallen behind gets a second one", n)
	}
}

// write changes the state of all agents some times, as their reports do.
func write(ctx context.Context, client *clientv3.Client, agents []lease.Agent, times int) error {
	var group errgroup.Group
	group.SetLimit(8)
	for i := range times {
		group.Go(func() error {
			var puts []clientv3.Op
			for _, a := range agents {
				changed := a.Clone()
				for j := range changed.Overlays {
					text := fmt.Sprintf("trouble %d ", i)
					changed.Overlays[j].State = lease.State{Status: lease.StatusFailed, Error: text + strings.Repeat("x", textLength-len(text))}
				}
				b, err := json.Marshal(changed)
				if err != nil {
					return err
				}
				puts = append(puts, clientv3.OpPut(prefix+"agents/"+a.IP.String(), string(b)))
			}
			_, err := client.Txn(ctx).Then(puts...).Commit()
			return err
		})
	}
	return group.Wait()
}

// compact takes away what a coordinator has not seen yet while it sleeps.
func (c *cluster) compact(ctx context.Context, t *testing.T, client *clientv3.Client) {
	url := c.hosts[2].CoordinatorURL()
	left, stays := newReader(c.clients), newReader(c.clients)
	if err := errors.Join(left.catchUp(ctx, url), stays.catchUp(ctx, url)); err != nil {
		t.Fatal(err)
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := stays.open(watching, url)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// It ends with an error, when it is told to.
		_ = stays.read(stream, nil)
	}()
	if err := c.coordinators[2].proc.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Each watch of the sleeper breaks, and has to be begun again where it was.
	for i := range c.members {
		if err := c.restart(ctx, client, i); err != nil {
			t.Fatal(err)
		}
	}
	c.churn(t, 4, 0, 1)
	now, err := client.Get(ctx, prefix)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if err := c.coordinators[2].proc.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// What it has missed is nowhere any more, so it begins anew.
	err = lab.Until(ctx, "the sleeper to know what the others do", func(ctx context.Context) error {
		fresh, sleeper := newReader(c.clients), newReader(c.clients)
		if err := errors.Join(fresh.catchUp(ctx, c.hosts[0].CoordinatorURL()), sleeper.catchUp(ctx, url)); err != nil {
			return err
		}
		want, _ := fresh.state()
		got, _ := sleeper.state()
		return same(want, got)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := left.catchUp(ctx, url); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*reader{"that comes back": left, "that stayed": stays} {
		err := lab.Until(ctx, "the reader "+name, func(ctx context.Context) error { return r.agrees(ctx, c) })
		if err != nil {
			t.Error(err)
		}
	}
	if n := left.count(api.EventSnapshot); n != 2 {
		t.Errorf("%d snapshots: a reader that resumes after a compaction gets a second one", n)
	}
	// Whatever the coordinator missed, its reader is told.
	c.churn(t, 1, 0, 1, 2)
	err = lab.Until(ctx, "the reader that stayed", func(ctx context.Context) error { return stays.agrees(ctx, c) })
	if err != nil {
		t.Error(err)
	}
	for _, p := range append(left.problems, stays.problems...) {
		t.Error(p)
	}
	stop()
	<-ended
}

// restart kills and starts a member, and waits until it has a leader again.
func (c *cluster) restart(ctx context.Context, client *clientv3.Client, i int) error {
	if err := c.members[i].kill(ctx, 0); err != nil {
		return err
	}
	return lab.Until(ctx, "the member on host "+c.hosts[i].Name, func(ctx context.Context) error {
		try, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		status, err := client.Status(try, clientURL(c.hosts[i]))
		if err == nil && status.Leader == 0 {
			err = errors.New("it has no leader")
		}
		return err
	})
}
