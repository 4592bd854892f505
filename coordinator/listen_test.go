package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDeadCallers: the kernel is told how long a connection may be kept whose
// other end does not acknowledge anything.
func TestDeadCallers(t *testing.T) {
	listeners, err := listen(t.Context(), []string{"127.0.0.1:0", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		defer l.Close()
		caller, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer caller.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		var sockErr error
		if err := raw.Control(func(fd uintptr) {
			got, sockErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		}); err != nil || sockErr != nil {
			t.Fatal(err, sockErr)
		}
		if time.Duration(got)*time.Millisecond != ackTimeout {
			t.Errorf("%s: %d ms, want %s", l.Addr(), got, ackTimeout)
		}
	}
}

// TestListenTaken: an address that can't be had is named.
func TestListenTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := listen(t.Context(), []string{"127.0.0.1:0", taken.Addr().String()}); err == nil || !strings.Contains(err.Error(), "--listen "+taken.Addr().String()) {
		t.Errorf("got %v", err)
	}
}
