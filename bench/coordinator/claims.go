package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// bench is one run.
type bench struct {
	size
	dir     string
	report  *report
	profile string
	// only: claims are measured, and nothing that they are compared with.
	only bool
}

func (b *bench) measure(ctx context.Context, parts string) error {
	for part := range strings.SplitSeq(parts, ",") {
		var err error
		switch part {
		case "claims":
			// There is room for as many as the rounds may be.
			err = with(ctx, filepath.Join(b.dir, "claims"), full().bits, b.claims)
		case "scale":
			err = b.scale(ctx, filepath.Join(b.dir, "scale"))
		default:
			err = fmt.Errorf("there is no part %q to measure: there are claims and scale", part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// with calls f with a coordinator on dir that is ready.
func with(ctx context.Context, dir string, bits int, f func(context.Context, *coordinator) error) error {
	c, err := start(ctx, dir, bits)
	if err != nil {
		return err
	}
	if err = c.ready(ctx); err == nil {
		err = f(ctx, c)
	}
	return errors.Join(err, c.stop())
}

// way is one way to write through 64 clients. do is its round, of n calls.
type way struct {
	name string
	// server is the process that answers; 0 where its processor time is not
	// told apart.
	server int
	do     func(ctx context.Context, round, n int) (time.Duration, error)

	rates []float64
	used  usage
	calls int
}

// claims compares claims through HTTP with transactions that create one key
// each, in turns: over TCP on an etcd like the coordinator's, and in the
// process of the coordinator's own. All clients over TCP are in this process,
// and all servers in processes of their own.
func (b *bench) claims(ctx context.Context, c *coordinator) error {
	p, err := startPlain(ctx, filepath.Join(b.dir, "plain"))
	if err != nil {
		return err
	}
	lines, err := c.lines(ctx)
	if err != nil {
		return errors.Join(err, p.close())
	}
	defer closeAll(lines)
	ways := []*way{
		{name: "claims, 64 clients, HTTP over TCP", server: c.pid, do: func(ctx context.Context, round, n int) (time.Duration, error) {
			return claims(lines, round*n, (round+1)*n)
		}},
		{name: "create transactions, 64 clients, gRPC, a TCP connection each", server: p.pid, do: func(ctx context.Context, round, n int) (time.Duration, error) {
			return creates(ctx, p.each, fmt.Sprint("each-", round), n)
		}},
		{name: "create transactions, 64 clients, gRPC over one TCP connection", server: p.pid, do: func(ctx context.Context, round, n int) (time.Duration, error) {
			return creates(ctx, p.one, fmt.Sprint("one-", round), n)
		}},
		{name: "create transactions, 64 clients, in etcd's process", do: c.creates},
	}
	if b.only {
		ways = ways[:1]
	}
	if b.profile != "" {
		stop := c.record(ctx, b.profile, b.rounds)
		defer stop()
	}
	// What is done first warms up caches and the heap, and counts for nothing.
	for round := range b.rounds + 1 {
		// Lest one way always follows the same other one.
		for i := range ways {
			if err := ways[(i+round)%len(ways)].round(ctx, round, b.perRound); err != nil {
				return errors.Join(err, p.close())
			}
		}
	}
	for _, w := range ways {
		b.report.add(median(w.name, 0, "/s", w.rates))
	}
	for _, w := range ways {
		if w.server != 0 {
			each := func(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(w.calls) }
			b.report.add(row{Name: "processor time of one of the " + w.name, Value: each(w.used.server), Unit: "µs", Note: fmt.Sprintf("and %.0f µs of the clients", each(w.used.clients))})
		}
	}
	return p.close()
}

// round does n calls; the first round counts for nothing.
func (w *way) round(ctx context.Context, round, n int) error {
	var before, after usage
	var err error
	if w.server != 0 {
		if before, err = usageOf(w.server); err != nil {
			return err
		}
	}
	took, err := w.do(ctx, round, n)
	if err == nil && w.server != 0 {
		after, err = usageOf(w.server)
	}
	if err != nil || round == 0 {
		return err
	}
	w.rates = append(w.rates, float64(n)/took.Seconds())
	w.used.server += after.server - before.server
	w.used.clients += after.clients - before.clients
	w.calls += n
	return nil
}

// lines are a connection for each client.
func (c *coordinator) lines(ctx context.Context) ([]*line, error) {
	var lines []*line
	for range clients {
		l, err := c.dial(ctx)
		if err != nil {
			closeAll(lines)
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func closeAll(lines []*line) {
	for _, l := range lines {
		l.close()
	}
}

// claims has all clients claim for the agents from first up to end. They have
// their requests ready, and look at no more of an answer than whether it is
// one, so that what is measured is the coordinator.
func claims(lines []*line, first, end int) (time.Duration, error) {
	requests := make([][]byte, end-first)
	for i := range requests {
		target, body := claimOf(first + i)
		requests[i] = request(nil, "PUT", target, body, "")
	}
	next := numbers(end - first)
	begin := time.Now()
	var group errgroup.Group
	for _, l := range lines {
		group.Go(func() error {
			if err := l.conn.SetDeadline(begin.Add(roundTimeout)); err != nil {
				return err
			}
			for i := range next {
				if _, err := l.conn.Write(requests[i]); err != nil {
					return err
				}
				status, answer, err := l.receive()
				if err != nil {
					return fmt.Errorf("claim for agent %d: %w", first+i, err)
				}
				if status != 200 {
					return fmt.Errorf("claim for agent %d: status %d: %s", first+i, status, answer)
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(begin), err
}

// creates has the coordinator's own process create keys in its etcd.
func (c *coordinator) creates(ctx context.Context, round, n int) (took time.Duration, err error) {
	err = c.ask(ctx, fmt.Sprintf("%s?round=%d&n=%d", pathRaw, round, n), &took)
	return took, err
}

// ask makes one of the calls for measuring.
func (c *coordinator) ask(ctx context.Context, target string, v any) error {
	l, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	status, answer, err := l.call("GET", target, "")
	if err != nil {
		return err
	}
	if status != 200 {
		return fmt.Errorf("%s: status %d: %s", target, status, answer)
	}
	return json.Unmarshal(answer, v)
}

// record writes a CPU profile of the coordinator, of one second a round, into
// path; what it returns waits for its end.
func (c *coordinator) record(ctx context.Context, path string, seconds int) func() {
	done := make(chan error, 1)
	go func() {
		body, err := c.get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds), "")
		if err == nil {
			err = os.WriteFile(path, body.data, 0o644)
		}
		done <- err
	}()
	return func() {
		if err := <-done; err != nil {
			fmt.Fprintf(os.Stderr, "bench/coordinator: no profile: %v\n", err)
		}
	}
}
