package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ackTimeout is how long a caller may leave unacknowledged what was sent to it.
// It is what the server gives a caller to take an answer, too.
const ackTimeout = time.Minute

// listen opens all of addresses, or none.
func listen(ctx context.Context, addresses []string) ([]net.Listener, error) {
	conf := net.ListenConfig{Control: boundAcks}
	var out []net.Listener
	for _, a := range addresses {
		l, err := conf.Listen(ctx, "tcp", a)
		if err != nil {
			for _, open := range out {
				err = errors.Join(err, open.Close())
			}
			return nil, fmt.Errorf("--listen %s: %w", a, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// boundAcks makes the kernel give up the connections of a listener, which have
// this from it, whose caller is gone without a word: a host that lost its power
// has a stream open, of which the pings would else be sent again for a quarter
// of an hour, and there are as many places for streams as there are agents.
func boundAcks(_, _ string, conn syscall.RawConn) error {
	var err error
	controlErr := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ackTimeout/time.Millisecond))
	})
	return errors.Join(controlErr, err)
}
