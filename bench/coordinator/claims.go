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
}

func (b *bench) measure(ctx context.Context, parts string) error {
	for part := range strings.SplitSeq(parts, ",") {
		var err error
		switch part {
		case "claims":
			// There is room for as many as the rounds may be.
			err = with(ctx, filepath.Join(b.dir, "claims"), full().bits, true, b.claims)
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
func with(ctx context.Context, dir string, bits int, compare bool, f func(context.Context, *coordinator) error) error {
	c, err := start(ctx, dir, bits, compare)
	if err != nil {
		return err
	}
	if err = c.ready(ctx); err == nil {
		err = f(ctx, c)
	}
	return errors.Join(err, c.stop())
}

// claims compares claims through HTTP with transactions that create one key
// each on the same etcd, in turns.
func (b *bench) claims(ctx context.Context, c *coordinator) error {
	if b.profile != "" {
		stop := c.record(ctx, b.profile, b.rounds)
		defer stop()
	}
	rates := map[string][]float64{}
	n := float64(b.perRound)
	// What is done first warms up caches and the heap, and counts for nothing.
	for round := range b.rounds + 1 {
		took := map[string]time.Duration{}
		ways := []string{"claims", inProcess, overGRPC}
		for i := range ways {
			// In turn each of them is the first.
			way := ways[(i+round)%len(ways)]
			var err error
			if first := round * b.perRound; way == "claims" {
				took[way], err = c.claims(ctx, first, first+b.perRound)
			} else {
				took[way], err = c.creates(ctx, way, round, b.perRound)
			}
			if err != nil {
				return err
			}
		}
		if round == 0 {
			continue
		}
		for _, way := range ways {
			rates[way] = append(rates[way], n/took[way].Seconds())
			rates["claims : "+way] = append(rates["claims : "+way], took[way].Seconds()/took["claims"].Seconds())
		}
	}
	b.report.add(
		median("claims, 64 clients, HTTP over TCP", 0, "/s", rates["claims"]),
		median("create transactions, 64 clients, gRPC over TCP", 0, "/s", rates[overGRPC]),
		median("create transactions, 64 clients, in etcd's process", 0, "/s", rates[inProcess]),
		median("claims : create transactions over TCP", 0, "", rates["claims : "+overGRPC]),
		median("claims : create transactions in etcd's process", 0, "", rates["claims : "+inProcess]),
	)
	return nil
}

// claims has all clients claim for the agents from first up to end.
func (c *coordinator) claims(ctx context.Context, first, end int) (time.Duration, error) {
	lines := make([]*line, clients)
	for i := range lines {
		l, err := c.dial(ctx)
		if err != nil {
			return 0, err
		}
		defer l.close()
		lines[i] = l
	}
	next := numbers(end - first)
	begin := time.Now()
	var group errgroup.Group
	for _, l := range lines {
		group.Go(func() error {
			for i := range next {
				status, answer, err := l.claim(first + i)
				if err != nil {
					return err
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

func (c *coordinator) creates(ctx context.Context, way string, round, n int) (took time.Duration, err error) {
	err = c.ask(ctx, fmt.Sprintf("%s?way=%s&round=%d&n=%d", pathRaw, way, round, n), &took)
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
