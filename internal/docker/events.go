package docker

import (
	"context"
	"time"

	"github.com/moby/moby/client"
)

// redial is how long Events waits before it tries an absent Engine again. A
// try is one connect to a local socket.
const redial = 2 * time.Second

// Events returns a channel on which something arrives whenever the Engine
// comes or goes, or its networks or what is connected to them change. What
// arrives while nobody reads is one event. The channel is closed when ctx ends.
func (e *Engine) Events(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	notify := func() {
		select {
		case out <- struct{}{}:
		default: // one is waiting already
		}
	}
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			e.listen(ctx, notify)
			select {
			case <-ctx.Done():
			case <-time.After(redial):
			}
		}
	}()
	return out
}

// listen notifies of one connection's events, its beginning and its end
// included. It returns when the Engine goes, at once if it is not there.
func (e *Engine) listen(ctx context.Context, notify func()) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := e.connect(ctx)
	if err != nil {
		return
	}
	defer s.Close()
	// A container that starts or stops connects to a network or leaves it.
	stream := s.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.Add("type", "network")})
	// What happened before the subscription is for the reader to look at.
	notify()
	for {
		select {
		case <-stream.Messages:
			notify()
		case <-stream.Err:
			notify()
			return
		}
	}
}
