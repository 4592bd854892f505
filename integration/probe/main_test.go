package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server runs serve's two halves on loopback and returns their address.
func server(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(l.Addr().(*net.TCPAddr).AddrPort()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go serveTCP(l)
	go serveUDP(p)
	return l.Addr().String()
}

func TestDialPrintsThePeerAsSeen(t *testing.T) {
	addr := server(t)
	for _, args := range [][]string{{"dial", addr}, {"dial", "-udp", addr}, {"dial", "-4", addr}} {
		var out bytes.Buffer
		if err := run(args, &out); err != nil {
			t.Errorf("%v: %v", args, err)
		} else if !strings.HasPrefix(out.String(), "127.0.0.1:") {
			t.Errorf("%v printed %q", args, &out)
		}
	}
	if err := run([]string{"dial", "-6", addr}, io.Discard); err == nil {
		t.Error("dial -6 of an IPv4 address succeeded")
	}
}

// TestDialUDPAsksAgain: one lost datagram is not the end of it.
func TestDialUDPAsksAgain(t *testing.T) {
	p, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	go func() {
		buf := make([]byte, 16)
		// The first one is lost.
		if _, _, err := p.ReadFromUDP(buf); err != nil {
			return
		}
		if _, from, err := p.ReadFromUDP(buf); err == nil {
			p.WriteToUDP([]byte(from.String()+"\n"), from)
		}
	}()
	line, err := dial("udp", p.LocalAddr().String(), 30*time.Second)
	if err != nil || !strings.HasPrefix(line, "127.0.0.1:") {
		t.Errorf("the answer is %q, %v", line, err)
	}
}

func TestStream(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"stream", "-interval", "1ms", server(t), "20ms"}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "blocks 21 longest gap ") {
		t.Errorf("stream printed %q", &out)
	}
}

// TestStreamFails covers the ways in which a stream can go wrong.
func TestStreamFails(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"broke": func(c net.Conn) {
			io.WriteString(c, "you\n")
			io.CopyN(io.Discard, c, blockSize)
			c.(*net.TCPConn).SetLinger(0)
		},
		"ended after 0 of": func(c net.Conn) {
			io.WriteString(c, "you\n")
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		},
		"corrupt": func(c net.Conn) {
			io.WriteString(c, "you\n")
			c.Write(bytes.Repeat([]byte{1}, blockSize))
			io.Copy(io.Discard, c)
		},
		"i/o timeout": func(c net.Conn) {
			io.WriteString(c, "you\n")
			io.Copy(io.Discard, c)
			// Hold the connection open until the stream gives up.
			c.Read(make([]byte, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					defer c.Close()
					handle(c)
				}
			}()
			err = stream(l.Addr().String(), 300*time.Millisecond, time.Millisecond, 100*time.Millisecond, nil, io.Discard)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("stream: %v", err)
			}
		})
	}
}

func TestHTTP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, r.Method+" "+string(body))
	}))
	defer srv.Close()
	var out bytes.Buffer
	if err := run([]string{"http", "POST", srv.URL, "hello"}, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != "418\nPOST hello" {
		t.Errorf("http printed %q", &out)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"dance"}, {"dial"}, {"stream", "127.0.0.1:1"}} {
		if err := run(args, io.Discard); err == nil || !strings.Contains(err.Error(), "usage:") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestStreamEndsEarly: what was sent till then has to come back all the same.
func TestStreamEndsEarly(t *testing.T) {
	stop := make(chan os.Signal, 1)
	stop <- syscall.SIGTERM
	var out strings.Builder
	if err := stream(server(t), time.Hour, time.Millisecond, 10*time.Second, stop, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "longest gap") {
		t.Errorf("stream printed %q", &out)
	}
}
