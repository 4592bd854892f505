package connlimit

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// far is a connection that comes from a host elsewhere.
type far struct {
	net.Conn
	from netip.AddrPort
	mu   *sync.Mutex
	// closed is true once it was closed.
	closed bool
}

func (f *far) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(f.from) }

func (f *far) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

func (f *far) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// door is a listener whose connections the test makes.
type door struct{ in chan net.Conn }

func (d door) Accept() (net.Conn, error) {
	c, ok := <-d.in
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (door) Close() error   { return nil }
func (door) Addr() net.Addr { return &net.TCPAddr{} }

func TestBounds(t *testing.T) {
	var log strings.Builder
	l := New(6, 2, slog.New(slog.NewTextHandler(&log, nil)))
	d := door{make(chan net.Conn)}
	out := make(chan net.Conn)
	go func() {
		defer close(out)
		for in := l.Listener(d); ; {
			c, err := in.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			out <- c
		}
	}()
	// knock makes a connection, and returns it if it is let in.
	knock := func(from string, in bool) net.Conn {
		t.Helper()
		f := &far{from: netip.MustParseAddrPort(from), mu: &sync.Mutex{}}
		d.in <- f
		if in {
			select {
			case c := <-out:
				return c
			case <-time.After(10 * time.Second):
				t.Fatalf("%s was not let in", from)
			}
		}
		for end := time.Now().Add(10 * time.Second); !f.isClosed(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s was not refused", from)
			}
		}
		return nil
	}
	first := knock("10.0.0.1:1", true)
	knock("10.0.0.1:2", true)
	knock("10.0.0.1:3", false)
	knock("[::ffff:10.0.0.1]:3", false)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	_ = first.Close()
	knock("10.0.0.1:4", true)
	knock("10.0.0.1:5", false)
	knock("[fd00::1]:1", true)
	knock("[fd00::ffff:0:0:2]:1", true)
	knock("[fd00::3]:1", false)
	knock("127.0.0.1:1", true)
	last := knock("127.0.0.1:2", true)
	knock("127.0.0.1:3", false)
	knock("10.0.0.2:1", false)
	if open, refused := l.Counts(); open != 6 || refused != (Refused{Total: 2, Host: 4}) {
		t.Errorf("%d are open, refused were %+v", open, refused)
	}
	_ = last.Close()
	c := knock("10.0.0.2:1", true)
	close(d.in)
	if _, more := <-out; more {
		t.Error("a connection came from nowhere")
	}
	_ = c.Close()
	if n := strings.Count(log.String(), "refused"); n != 1 {
		t.Errorf("the log has %d lines, want one a minute:\n%s", n, &log)
	}
}

// TestOnTCP: what net/http needs of a connection is there.
func TestOnTCP(t *testing.T) {
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	l := New(1, 1, slog.New(slog.DiscardHandler))
	outer := l.Listener(inner)
	dial := func() net.Conn {
		t.Helper()
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	client := dial()
	server, err := outer.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after CloseWrite the client reads %v", err)
	}
	done := make(chan error, 1)
	go func() {
		c, err := outer.Accept()
		if err == nil {
			err = c.Close()
		}
		done <- err
	}()
	// The reset may come before connect has returned.
	second, err := new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err == nil {
		defer second.Close()
		if err := second.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = second.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the second has %v", err)
	}
	_ = server.Close()
	if n, _ := l.Counts(); n != 0 {
		t.Errorf("%d are open", n)
	}
	third := dial()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the third reads %v", err)
	}
}
