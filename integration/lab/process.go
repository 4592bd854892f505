package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/integration/lab/hostinit"
)

// Process is a program that was started in a Place.
type Process struct {
	// Name is what it was started as.
	Name string
	// PID is its process number inside the host.
	PID int

	place *Place
	conn  *net.UnixConn
	log   string
	// begin is where in the log this process's own part begins.
	begin int64

	// done is closed when it has ended; code and lost are set before.
	done chan struct{}
	code int
	// lost is set if the host went down with it.
	lost error
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Log is what the process has printed so far.
func (p *Process) Log() string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, p.begin, 1<<40))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// WaitLog waits until the process has printed text; it fails when the process
// ends without.
func (p *Process) WaitLog(ctx context.Context, text string) error {
	return p.waitUntil(ctx, fmt.Sprintf("%s to print %q", p.Name, text), func(context.Context) error {
		if !strings.Contains(p.Log(), text) {
			return errors.New("not yet")
		}
		return nil
	})
}

// waitUntil is Until, but ends as soon as the process has ended; errors carry
// the end of its log.
func (p *Process) waitUntil(ctx context.Context, what string, f func(context.Context) error) error {
	alive, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.done:
			cancel(p.status())
		case <-alive.Done():
		}
	}()
	err := Until(alive, what, f)
	if err == nil {
		return nil
	}
	if cause := context.Cause(alive); cause != nil && ctx.Err() == nil {
		// It may have done it, and ended, between two looks.
		if f(ctx) == nil {
			return nil
		}
		err = fmt.Errorf("waiting for %s: %w", what, cause)
	}
	return fmt.Errorf("%s: %w; its log ends:\n%s", p.place.name, err, tail(p.Log()))
}

// Wait waits until the process ends by itself. A status that is not zero is an
// error, with the end of the log.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("%s: waiting for %s to end: %w; its log ends:\n%s", p.place.name, p.Name, ctx.Err(), tail(p.Log()))
	}
	if p.lost == nil && p.code == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w; its log ends:\n%s", p.place.name, p.status(), tail(p.Log()))
}

// status is how the process ended, as an error.
func (p *Process) status() error {
	if p.lost != nil {
		return p.lost
	}
	return fmt.Errorf("%s ended with status %d", p.Name, p.code)
}

// Signal sends a signal to the process; to one that has ended, nothing.
func (p *Process) Signal(s unix.Signal) error {
	if err := p.send(hostinit.Signal{Number: int(s)}); err != nil {
		return fmt.Errorf("%s: sending %s to %s: %w", p.place.name, s, p.Name, err)
	}
	return nil
}

// Stop asks the process to end, by SIGTERM, and waits. One that has not ended
// after stopTimeout, or when ctx ends, is killed, and that is an error, as is
// a status that is not zero.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-p.done:
		return p.Wait(ctx)
	case <-waiting.Done():
		return errors.Join(fmt.Errorf("%s: %s did not end on SIGTERM; its log ends:\n%s", p.place.name, p.Name, tail(p.Log())), p.Kill())
	}
}

// stopTimeout is what service managers commonly grant; dockerd takes up to 15
// seconds with containers.
const stopTimeout = 30 * time.Second

// Kill ends the process by SIGKILL and waits until it is gone. Its children go
// on, as those of a crashed daemon do.
func (p *Process) Kill() error {
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

func (p *Process) send(s hostinit.Signal) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := p.conn.Write(data); err != nil {
		// The other end is closed once the process has ended.
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	}
	return nil
}

// next reads an event of the process.
func (p *Process) next() (hostinit.Event, error) {
	buf := make([]byte, 4096)
	n, err := p.conn.Read(buf)
	if err != nil || n == 0 {
		return hostinit.Event{}, fmt.Errorf("host %s went down", p.place.host.Name)
	}
	var e hostinit.Event
	return e, json.Unmarshal(buf[:n], &e)
}

// watch waits for the process's end.
func (p *Process) watch() {
	defer close(p.done)
	defer p.conn.Close()
	e, err := p.next()
	if err != nil {
		p.lost = err
		return
	}
	p.code = e.Code
	if e.Signal != 0 {
		p.code = 128 + e.Signal
	}
}

// tail is the end of a text: what a message can bear.
func tail(text string) string {
	const most = 4000
	text = strings.TrimSpace(text)
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}
