package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
)

// watcher is one reader of the stream.
type watcher struct {
	line *line
	// heard gets the time at which the wanted agent was in the stream.
	heard chan time.Time
}

// notify measures from a claim until every watcher has been told of it.
func (b *bench) notify(ctx context.Context, c *coordinator, first int) error {
	var now api.AgentsResponse
	all, err := c.get(ctx, api.PathAgents, "identity")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(all.data, &now); err != nil {
		return fmt.Errorf("read the agents: %w", err)
	}
	wanted := make([][]byte, b.notices)
	for i := range wanted {
		wanted[i] = fmt.Appendf(nil, `"ip":%q`, agentIP(first+i))
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	watchers := make([]*watcher, b.watchers)
	for i := range watchers {
		w := &watcher{heard: make(chan time.Time, b.notices)}
		if w.line, err = c.dial(ctx); err != nil {
			return err
		}
		defer w.line.close()
		if err := w.line.send("GET", fmt.Sprintf("%s?watch=true&since=%d", api.PathAgents, now.Revision), "", ""); err != nil {
			return err
		}
		watchers[i] = w
		synced := make(chan error, 1)
		wg.Go(func() { w.listen(wanted, synced) })
		select {
		case err = <-synced:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("open a stream: %w", err)
		}
	}
	return b.tell(ctx, c, first, watchers)
}

// listen reads the stream until it ends, and tells when it had each of wanted.
func (w *watcher) listen(wanted [][]byte, synced chan<- error) {
	in := bufio.NewScanner(w.line.in)
	in.Buffer(make([]byte, 4<<10), 1<<20)
	open := false
	for len(wanted) > 0 && in.Scan() {
		switch text := in.Bytes(); {
		case !open && bytes.Contains(text, []byte(`"synced"`)):
			open = true
			synced <- nil
		case bytes.Contains(text, wanted[0]):
			w.heard <- time.Now()
			wanted = wanted[1:]
		}
	}
	if !open {
		synced <- fmt.Errorf("it ended before it began: %w", in.Err())
	}
	close(w.heard)
}

// tell claims one by one, each when all have heard of the one before.
func (b *bench) tell(ctx context.Context, c *coordinator, first int, watchers []*watcher) error {
	l, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	var each, last, answered []float64
	for i := range b.notices {
		begin := time.Now()
		status, answer, err := l.claim(first + i)
		if err != nil || status != 200 {
			return fmt.Errorf("claim for agent %d: status %d: %s: %w", first+i, status, answer, err)
		}
		answered = append(answered, time.Since(begin).Seconds()*1e3)
		slowest := 0.0
		for _, w := range watchers {
			select {
			case at, ok := <-w.heard:
				if !ok {
					return fmt.Errorf("a stream ended before it told of agent %d", first+i)
				}
				took := at.Sub(begin).Seconds() * 1e3
				each = append(each, took)
				slowest = max(slowest, took)
			case <-ctx.Done():
				return fmt.Errorf("a stream has not told of agent %d: %w", first+i, ctx.Err())
			}
		}
		last = append(last, slowest)
	}
	for _, x := range []struct {
		what   string
		values []float64
	}{
		{fmt.Sprintf("from a claim until one of %d watchers has it", len(watchers)), each},
		{fmt.Sprintf("from a claim until all of %d watchers have it", len(watchers)), last},
		{fmt.Sprintf("a claim's answer, with %d watchers", len(watchers)), answered},
	} {
		slices.Sort(x.values)
		for _, q := range []float64{0.5, 0.99} {
			b.report.add(row{Name: fmt.Sprintf("%s, p%.0f", x.what, 100*q), Agents: first, Value: quantile(x.values, q), Unit: "ms", Samples: 1})
		}
	}
	return nil
}
