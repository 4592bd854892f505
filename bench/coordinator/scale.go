package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pathState is DC/OS's call.
const pathState = "/overlay-master/state"

// mega is a million bytes.
const mega = 1e6

// scale measures the coordinator as agents become as many as there are subnets.
func (b *bench) scale(ctx context.Context, dir string) error {
	if err := with(ctx, dir, b.bits, b.fill); err != nil {
		return err
	}
	if err := b.restart(ctx, dir); err != nil {
		return err
	}
	return with(ctx, dir, b.bits, func(ctx context.Context, c *coordinator) error {
		all := b.steps[len(b.steps)-1]
		if err := b.memory(ctx, c, "after a restart", all); err != nil {
			return err
		}
		if err := b.state(ctx, c, all); err != nil {
			return err
		}
		return b.memory(ctx, c, "after answers with the state", all)
	})
}

// fill leases all subnets but those that the watchers are told of, then those.
func (b *bench) fill(ctx context.Context, c *coordinator) error {
	lines, err := c.lines(ctx)
	if err != nil {
		return err
	}
	defer closeAll(lines)
	done := 0
	for i, n := range b.steps {
		last := i == len(b.steps)-1
		end := n
		if last {
			end -= b.notices
		}
		took, err := claims(lines, done, end)
		if err != nil {
			return err
		}
		b.report.add(row{Name: "claims up to there", Agents: n, Value: float64(end-done) / took.Seconds(), Unit: "/s"})
		done = end
		if last {
			if err := b.notify(ctx, c, done); err != nil {
				return err
			}
		}
		if err := b.memory(ctx, c, "as they were claimed", n); err != nil {
			return err
		}
	}
	return b.exhausted(ctx, c, done+b.notices)
}

// exhausted asks for one subnet more than there are.
func (b *bench) exhausted(ctx context.Context, c *coordinator, n int) error {
	l, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	begin := time.Now()
	status, answer, err := l.claim(n)
	if err != nil {
		return err
	}
	if status != http.StatusConflict || !strings.Contains(string(answer), `"exhausted"`) {
		return fmt.Errorf("the claim of agent %d, beyond the last subnet: status %d: %s", n+1, status, answer)
	}
	b.report.add(row{Name: "one claim too many is refused", Agents: n, Value: time.Since(begin).Seconds() * 1e3, Unit: "ms", Note: strings.TrimSpace(string(answer))})
	return nil
}

func (b *bench) memory(ctx context.Context, c *coordinator, when string, agents int) error {
	var m memory
	if err := c.ask(ctx, pathMemory, &m); err != nil {
		return err
	}
	b.report.add(
		row{Name: "Go heap, " + when, Agents: agents, Value: float64(m.Heap) / mega, Unit: "MB"},
		row{
			Name: "RSS, " + when, Agents: agents, Value: float64(m.RSS) / mega, Unit: "MB",
			Note: fmt.Sprintf("%.0f MB without the database's file", float64(m.Anonymous)/mega),
		},
	)
	return nil
}

// restart measures from the start of the process until it is ready.
func (b *bench) restart(ctx context.Context, dir string) error {
	all := b.steps[len(b.steps)-1]
	size, err := sizeOf(dir)
	if err != nil {
		return err
	}
	b.report.add(row{Name: "data directory", Agents: all, Value: float64(size) / mega, Unit: "MB"})
	var took []float64
	for range max(3, b.repeats/2) {
		begin := time.Now()
		err := with(ctx, dir, b.bits, func(context.Context, *coordinator) error {
			took = append(took, time.Since(begin).Seconds()*1e3)
			return nil
		})
		if err != nil {
			return err
		}
	}
	b.report.add(median("restart until ready", all, "ms", took))
	return nil
}

func sizeOf(dir string) (int64, error) {
	var sum int64
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// body is the body of an answer, with what else is of interest.
type body struct {
	data   []byte
	status int
	tag    string
	took   time.Duration
}

// get reads whole what is at target.
func (c *coordinator) get(ctx context.Context, target, encoding string, header ...string) (body, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.address+target, nil)
	if err != nil {
		return body{}, err
	}
	if encoding != "" {
		req.Header.Set("Accept-Encoding", encoding)
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	// Whatever comes is counted as it is, not unpacked.
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	begin := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return body{}, err
	}
	data, err := io.ReadAll(resp.Body)
	took := time.Since(begin)
	return body{data: data, status: resp.StatusCode, tag: resp.Header.Get("ETag"), took: took}, errors.Join(err, resp.Body.Close())
}

// state measures the ways in which the state is answered.
func (b *bench) state(ctx context.Context, c *coordinator, agents int) error {
	for _, way := range []struct{ name, encoding string }{{"as it is", "identity"}, {"gzip", "gzip"}} {
		first, err := c.get(ctx, pathState, way.encoding)
		if err != nil {
			return err
		}
		b.report.add(
			row{Name: "state, " + way.name + ", size", Agents: agents, Value: float64(len(first.data)) / mega, Unit: "MB"},
			row{Name: "state, " + way.name + ", the first time", Agents: agents, Value: first.took.Seconds() * 1e3, Unit: "ms"},
		)
		var again, changed, unchanged []float64
		tag := first.tag
		for i := range b.repeats {
			next, err := c.get(ctx, pathState, way.encoding)
			if err != nil {
				return err
			}
			again = append(again, next.took.Seconds()*1e3)
			same, err := c.get(ctx, pathState, way.encoding, "If-None-Match", tag)
			if err != nil {
				return err
			}
			if same.status == http.StatusNotModified {
				unchanged = append(unchanged, same.took.Seconds()*1e3)
			}
			if err := c.touch(ctx, i); err != nil {
				return err
			}
			other, err := c.get(ctx, pathState, way.encoding, "If-None-Match", tag)
			if err != nil {
				return err
			}
			changed = append(changed, other.took.Seconds()*1e3)
			tag = other.tag
		}
		b.report.add(
			median("state, "+way.name+", once more", agents, "ms", again),
			median("state, "+way.name+", after one agent changed", agents, "ms", changed),
		)
		if len(unchanged) > 0 {
			b.report.add(median("state, "+way.name+", 304", agents, "ms", unchanged))
		}
	}
	return nil
}

// touch changes the record of one agent.
func (c *coordinator) touch(ctx context.Context, i int) error {
	l, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	text := fmt.Sprintf(`{"overlays":[{"name":"dcos","state":{"status":"STATUS_FAILED","error":"at %s"}}]}`, time.Now())
	status, answer, err := l.call("PUT", "/v1/agents/"+agentIP(i)+"/status", text)
	if err != nil {
		return err
	}
	if status != http.StatusNoContent {
		return fmt.Errorf("status of agent %d: %d: %s", i, status, answer)
	}
	return nil
}
