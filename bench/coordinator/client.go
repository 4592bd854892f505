package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// callTimeout bounds one call; that for plain transactions is the longest.
const callTimeout = time.Minute

// roundTimeout bounds a round of claims; the longest is of 55,536.
const roundTimeout = 5 * time.Minute

// process is this program once more, as a server that has said its address.
type process struct {
	pid     int
	address string
	stop    func() error
}

// coordinator is a coordinator in a process of its own.
type coordinator struct{ *process }

// start starts a coordinator on dir, and does not wait until it is ready.
func start(ctx context.Context, dir string, bits int) (*coordinator, error) {
	p, err := spawn(ctx, "-serve", dir, "-bits", strconv.Itoa(bits))
	if err != nil {
		return nil, fmt.Errorf("the coordinator: %w", err)
	}
	return &coordinator{p}, nil
}

// spawn starts this program with args; it ends when its input does.
func spawn(ctx context.Context, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %v: %w", args, err)
	}
	stop := func() error {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("stop %v: %w", args, err)
		}
		return nil
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("it says no address: %w", err), stop())
	}
	return &process{pid: cmd.Process.Pid, address: strings.TrimSpace(line), stop: stop}, nil
}

// ready waits until the coordinator answers calls.
func (c *coordinator) ready(ctx context.Context) error {
	for {
		l, err := c.dial(ctx)
		if err == nil {
			var status int
			status, _, err = l.call("GET", "/readyz", "")
			l.close()
			if err == nil && status == 200 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the coordinator is not ready: %w", errors.Join(ctx.Err(), err))
		case <-time.After(time.Millisecond):
		}
	}
}

// line is a connection to the coordinator. It does no more than it must, so
// that what is measured is the coordinator.
type line struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

func (c *coordinator) dial(ctx context.Context) (*line, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, fmt.Errorf("call the coordinator: %w", err)
	}
	return &line{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

func (l *line) close() { _ = l.conn.Close() }

// send writes a request.
func (l *line) send(method, target, body, header string) error {
	if err := l.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	l.out = request(l.out[:0], method, target, body, header)
	_, err := l.conn.Write(l.out)
	return err
}

// request appends a request to b.
func request(b []byte, method, target, body, header string) []byte {
	return fmt.Appendf(b, "%s %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n%s\r\n%s", method, target, len(body), header, body)
}

// call makes a call whose answer is short enough to bear its length.
func (l *line) call(method, target, body string) (status int, answer []byte, err error) {
	if err := l.send(method, target, body, ""); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, target, err)
	}
	if status, answer, err = l.receive(); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, target, err)
	}
	return status, bytes.Clone(answer), nil
}

// receive reads an answer, which is as it is until the next one is read.
func (l *line) receive() (status int, answer []byte, err error) {
	length := -1
	for first := true; ; first = false {
		text, err := l.in.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		text = bytes.TrimSpace(text)
		switch {
		case first:
			_, code, _ := bytes.Cut(text, []byte(" "))
			status, _ = strconv.Atoi(string(code[:min(3, len(code))]))
		case len(text) == 0:
			if status == http.StatusNoContent {
				length = 0
			}
			if length < 0 {
				return 0, nil, errors.New("the answer has no length")
			}
			l.body = slices.Grow(l.body[:0], length)[:length]
			_, err := io.ReadFull(l.in, l.body)
			return status, l.body, err
		default:
			if value, ok := bytes.CutPrefix(text, []byte("Content-Length: ")); ok {
				length, _ = strconv.Atoi(string(value))
			}
		}
	}
}

// claim claims for the i-th agent.
func (l *line) claim(i int) (status int, answer []byte, err error) {
	target, body := claimOf(i)
	return l.call("PUT", target, body)
}

// claimOf is what the i-th agent asks.
func claimOf(i int) (target, body string) {
	return "/v1/agents/" + agentIP(i) + "/lease", `{"id":"agent-` + strconv.Itoa(i) + `","overlays":["dcos"]}`
}

// agentIP is the underlay address of the i-th agent.
func agentIP(i int) string {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
}
