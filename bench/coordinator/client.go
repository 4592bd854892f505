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
	"strconv"
	"strings"
	"time"
)

// callTimeout bounds one call; that for plain transactions is the longest.
const callTimeout = time.Minute

// coordinator is a coordinator in a process of its own.
type coordinator struct {
	address string
	stop    func() error
}

// start starts a coordinator on dir, and does not wait until it is ready.
func start(ctx context.Context, dir string, bits int, compare bool) (*coordinator, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "-serve", dir, "-bits", strconv.Itoa(bits), fmt.Sprintf("-compare=%v", compare))
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
		return nil, fmt.Errorf("start a coordinator: %w", err)
	}
	stop := func() error {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("the coordinator: %w", err)
		}
		return nil
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the coordinator says no address: %w", err), stop())
	}
	return &coordinator{address: strings.TrimSpace(line), stop: stop}, nil
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
	l.out = fmt.Appendf(l.out[:0], "%s %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n%s\r\n%s", method, target, len(body), header, body)
	_, err := l.conn.Write(l.out)
	return err
}

// call makes a call whose answer is short enough to bear its length.
func (l *line) call(method, target, body string) (status int, answer []byte, err error) {
	if err := l.send(method, target, body, ""); err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, target, err)
	}
	length := -1
	for first := true; ; first = false {
		text, err := l.in.ReadSlice('\n')
		if err != nil {
			return 0, nil, fmt.Errorf("%s %s: %w", method, target, err)
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
				return 0, nil, fmt.Errorf("%s %s: the answer has no length", method, target)
			}
			answer = make([]byte, length)
			_, err := io.ReadFull(l.in, answer)
			return status, answer, err
		default:
			if value, ok := bytes.CutPrefix(text, []byte("Content-Length: ")); ok {
				length, _ = strconv.Atoi(string(value))
			}
		}
	}
}

// claim claims for the i-th agent.
func (l *line) claim(i int) (status int, answer []byte, err error) {
	return l.call("PUT", "/v1/agents/"+agentIP(i)+"/lease", `{"id":"agent-`+strconv.Itoa(i)+`","overlays":["dcos"]}`)
}

// agentIP is the underlay address of the i-th agent.
func agentIP(i int) string {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
}
