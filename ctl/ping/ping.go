// Package ping tells which VTEPs this host reaches through the overlay, and
// whether packets of full size get there and back. It asks by ICMP, from raw
// sockets, so it needs root or CAP_NET_RAW.
package ping

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// smallSize is that of the packets that ask whether a VTEP answers at all,
	// in bytes with the IP header: what ping(8) sends.
	smallSize = 84
	// sizeTries is how often one size is tried: a packet may get lost.
	sizeTries = 2
	// maxParallel bounds the VTEPs that are asked at a time, far below the
	// sequence numbers that there are.
	maxParallel = 1024
)

// Target is one VTEP.
type Target struct {
	// Agent is the underlay address of the VTEP's agent.
	Agent netip.Addr `json:"agent"`
	VTEP  netip.Addr `json:"vtep"`
}

// Options say how to ask.
type Options struct {
	// Size is that of a full packet with its IP header, in bytes: the MTU of
	// this host's VTEP. 0 asks with small packets only.
	Size int
	// Count is how many small packets are sent to each VTEP.
	Count int
	// Timeout is how long an answer is waited for.
	Timeout time.Duration
	// Parallel is how many VTEPs are asked at a time.
	Parallel int
}

// Result is how one VTEP answered.
type Result struct {
	Target
	Sent     int `json:"sent"`
	Received int `json:"received"`
	// RTT is the shortest time from a small packet to its answer.
	RTT time.Duration `json:"rtt_ns,omitempty"`
	// MTU is the size of the largest packet that was answered, in bytes.
	MTU int `json:"mtu,omitempty"`
	// Problem says what is wrong; it is empty when nothing is.
	Problem string `json:"problem,omitempty"`
}

// OK tells whether the VTEP answers, also to packets of full size.
func (r Result) OK() bool { return r.Problem == "" }

// Run asks every target, several at a time, and calls done after each, one
// call at a time. The results are in the order of targets. An error means that
// nothing could be asked.
func Run(ctx context.Context, targets []Target, o Options, done func(Result)) ([]Result, error) {
	sockets := map[bool]*socket{}
	for _, t := range targets {
		v6 := t.VTEP.Is6()
		if sockets[v6] != nil {
			continue
		}
		s, err := open(v6)
		if err != nil {
			return nil, err
		}
		defer s.close()
		sockets[v6] = s
	}
	results := make([]Result, len(targets))
	var group errgroup.Group
	group.SetLimit(min(max(o.Parallel, 1), maxParallel))
	var mu sync.Mutex
	for i, t := range targets {
		group.Go(func() error {
			r := ask(ctx, sockets[t.VTEP.Is6()], t, o)
			mu.Lock()
			defer mu.Unlock()
			results[i] = r
			done(r)
			return nil
		})
	}
	return results, group.Wait()
}

// asker sends one packet and waits for its answer; *socket is one.
type asker interface {
	ask(ctx context.Context, to netip.Addr, size int, timeout time.Duration) (time.Duration, error)
}

func ask(ctx context.Context, s asker, t Target, o Options) Result {
	r := Result{Target: t}
	var last error
	for range max(o.Count, 1) {
		rtt, err := s.ask(ctx, t.VTEP, smallSize, o.Timeout)
		r.Sent++
		if err != nil {
			last = err
			continue
		}
		r.Received++
		r.MTU = smallSize
		if r.RTT == 0 || rtt < r.RTT {
			r.RTT = rtt
		}
	}
	switch {
	case r.Received == 0:
		r.Problem = "no answer: " + last.Error()
		return r
	case r.Received < r.Sent:
		r.Problem = fmt.Sprintf("%d of %d packets were lost", r.Sent-r.Received, r.Sent)
	}
	if o.Size <= smallSize {
		return r
	}
	fits := func(size int) bool {
		for range sizeTries {
			_, err := s.ask(ctx, t.VTEP, size, o.Timeout)
			if err == nil {
				return true
			}
			if errors.Is(err, unix.EMSGSIZE) || ctx.Err() != nil {
				return false
			}
		}
		return false
	}
	if fits(o.Size) {
		r.MTU = o.Size
		return r
	}
	r.MTU = largest(smallSize, o.Size, fits)
	if ctx.Err() != nil {
		r.Problem = "not done: " + context.Cause(ctx).Error()
		return r
	}
	r.Problem = fmt.Sprintf("packets of %d bytes get through, larger ones up to %d do not", r.MTU, o.Size)
	return r
}

// largest is the largest size that fits, of which low is one and high is none.
func largest(low, high int, fits func(int) bool) int {
	for high-low > 1 {
		middle := (low + high) / 2
		if fits(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}
