package ping

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Header sizes in bytes (RFC 791, RFC 8200, RFC 792).
const (
	ip4Header  = 20
	ip6Header  = 40
	icmpHeader = 8
	// maxPacket is the longest IP packet.
	maxPacket = 65535
)

// The numbers of ICMP and of ICMPv6 among the protocols of IP (IANA).
const (
	protocolICMP   = 1
	protocolICMPv6 = 58
)

// errSilent is the error of a packet that nobody answered in time.
var errSilent = errors.New("nothing came back in time")

// socket is a raw ICMP socket of one address family. Many may ask by it.
type socket struct {
	conn *net.IPConn
	v6   bool
	// id is this socket's among all that ask on this host.
	id uint16
	// nonce is in each packet, so that no stranger can answer it.
	nonce [8]byte
	done  chan struct{}

	mu      sync.Mutex
	next    uint16
	waiting map[uint16]question
}

// question is a packet that is under way.
type question struct {
	to       netip.Addr
	size     int
	answered chan time.Time
}

func open(v6 bool) (*socket, error) {
	network, any := "ip4:icmp", netip.IPv4Unspecified()
	if v6 {
		network, any = "ip6:ipv6-icmp", netip.IPv6Unspecified()
	}
	conn, err := net.ListenIP(network, &net.IPAddr{IP: any.AsSlice()})
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("open a raw socket for ICMP: %w: run it as root, or with CAP_NET_RAW", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open a raw socket for ICMP: %w", err)
	}
	s := &socket{conn: conn, v6: v6, done: make(chan struct{}), waiting: map[uint16]question{}}
	var seed [10]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, errors.Join(fmt.Errorf("choose a number for ICMP: %w", err), conn.Close())
	}
	s.id = uint16(seed[0])<<8 | uint16(seed[1])
	copy(s.nonce[:], seed[2:])
	if err := s.dontFragment(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go s.listen()
	return s, nil
}

// dontFragment has packets sent with DF and whatever was learned of the path
// ignored, so that each size is really tried.
func (s *socket) dontFragment() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if s.v6 {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
		} else {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		}
	})
	if err := errors.Join(err, set); err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	return nil
}

func (s *socket) close() {
	s.conn.Close()
	<-s.done
}

// ask sends a packet of size bytes with its IP header, and waits for the
// answer, which has the same size.
func (s *socket) ask(ctx context.Context, to netip.Addr, size int, timeout time.Duration) (time.Duration, error) {
	header := ip4Header
	if s.v6 {
		header = ip6Header
	}
	payload := make([]byte, size-header-icmpHeader)
	copy(payload, s.nonce[:])
	q := question{to: to, size: size - header, answered: make(chan time.Time, 1)}
	s.mu.Lock()
	s.next++
	seq := s.next
	s.waiting[seq] = q
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, seq)
		s.mu.Unlock()
	}()

	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(s.id), Seq: int(seq), Data: payload}}
	if s.v6 {
		m.Type = ipv6.ICMPTypeEchoRequest // the kernel computes its checksum
	}
	packet, err := m.Marshal(nil)
	if err != nil {
		return 0, fmt.Errorf("make an ICMP packet: %w", err)
	}
	began := time.Now()
	if _, err := s.conn.WriteToIP(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, terse(err)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case at := <-q.answered:
		return at.Sub(began), nil
	case <-timer.C:
		return 0, errSilent
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// terse leaves out the addresses, which the reader is told anyway.
func terse(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// listen hands answers to those who wait for them until the socket is closed.
func (s *socket) listen() {
	defer close(s.done)
	buf := make([]byte, maxPacket)
	for {
		n, from, err := s.conn.ReadFromIP(buf)
		if err != nil {
			return
		}
		now := time.Now()
		ip, _ := netip.AddrFromSlice(from.IP)
		s.take(buf[:n], ip.Unmap(), now)
	}
}

func (s *socket) take(packet []byte, from netip.Addr, at time.Time) {
	protocol := protocolICMP
	if s.v6 {
		protocol = protocolICMPv6
	}
	m, err := icmp.ParseMessage(protocol, packet)
	if err != nil || m.Type != ipv4.ICMPTypeEchoReply && m.Type != ipv6.ICMPTypeEchoReply {
		return
	}
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || echo.ID != int(s.id) || len(echo.Data) < len(s.nonce) || [8]byte(echo.Data) != s.nonce {
		return
	}
	s.mu.Lock()
	q, waits := s.waiting[uint16(echo.Seq)]
	s.mu.Unlock()
	if !waits || q.to != from || q.size != len(packet) {
		return
	}
	select {
	case q.answered <- at:
	default: // a second answer to one packet
	}
}
