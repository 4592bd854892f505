// Package connlimit bounds how many connections listeners have open, of all
// callers together and of each host, so that no host can keep the others out.
package connlimit

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// warnEvery is the least time between two lines in the log about refusals.
const warnEvery = time.Minute

// Limiter counts the connections of its listeners.
type Limiter struct {
	total, perHost int
	log            *slog.Logger

	mu      sync.Mutex
	open    int
	byHost  map[netip.Prefix]int
	refused Refused
	warned  time.Time
}

// Refused counts connections that were closed at once, because there were too
// many in all, or too many of one host.
type Refused struct{ Total, Host uint64 }

// New makes a Limiter of total connections, of which perHost may come from one
// host. The machine itself may have all of them: a proxy there speaks for many.
func New(total, perHost int, log *slog.Logger) *Limiter {
	return &Limiter{total: total, perHost: perHost, log: log, byHost: map[netip.Prefix]int{}}
}

// Counts are the open connections, and those that were refused so far.
func (l *Limiter) Counts() (open int, refused Refused) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.refused
}

// Listener is inner without the connections that are too many. They are closed
// and not left waiting, so that a caller can try another coordinator at once.
func (l *Limiter) Listener(inner net.Listener) net.Listener { return &listener{inner, l} }

type listener struct {
	net.Listener
	limiter *Limiter
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host := hostOf(c.RemoteAddr())
		if l.limiter.admit(host) {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.limiter.leave(host) })}, nil
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			// A reset leaves nothing behind in the kernel; where it can't be
			// asked for, the close is an ordinary one.
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

// hostOf is what a caller is counted by: its IPv4 address, or the /64 that an
// IPv6 host can choose its addresses from. It is not valid for the machine
// itself.
func hostOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}

func (l *Limiter) admit(host netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open >= l.total:
		l.refused.Total++
		l.warn(fmt.Sprintf("connections are refused: there are %d, which --max-connections allows", l.open), host)
		return false
	case host.IsValid() && l.byHost[host] >= l.perHost:
		l.refused.Host++
		l.warn(fmt.Sprintf("connections of a host are refused: it has %d, which --max-connections-per-host allows", l.byHost[host]), host)
		return false
	}
	l.open++
	if host.IsValid() {
		l.byHost[host]++
	}
	return true
}

func (l *Limiter) leave(host netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if !host.IsValid() {
		return
	}
	if l.byHost[host]--; l.byHost[host] == 0 {
		delete(l.byHost, host)
	}
}

// warn needs mu.
func (l *Limiter) warn(text string, host netip.Prefix) {
	if now := time.Now(); now.Sub(l.warned) >= warnEvery {
		l.warned = now
		l.log.Warn(text, "host", host)
	}
}

// conn leaves the count when it is closed.
type conn struct {
	net.Conn
	leave func()
}

func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite lets net/http end an answer to a request that it has not read to
// the end.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
