package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// serve answers on TCP and UDP at every address, until it fails or is killed.
func serve(addrs []string, out io.Writer) error {
	failed := make(chan error)
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		// The same port for both, even if addr leaves it open.
		p, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(l.Addr().(*net.TCPAddr).AddrPort()))
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "listening on", l.Addr())
		go func() { failed <- serveTCP(l) }()
		go func() { failed <- serveUDP(p) }()
	}
	fmt.Fprintln(out, "serving")
	return <-failed
}

func serveTCP(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if _, err := fmt.Fprintln(c, plain(c.RemoteAddr())); err == nil {
				_, _ = io.Copy(c, c)
			}
		}()
	}
}

func serveUDP(p *net.UDPConn) error {
	// The answer must leave with the address that was asked, which a host
	// with several would not choose by itself.
	raw, err := p.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Control(func(fd uintptr) {
		// One of the two fails: the socket is of one family.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	if err != nil {
		return err
	}
	buf, oob := make([]byte, 64<<10), make([]byte, 1024)
	for {
		_, oobn, _, from, err := p.ReadMsgUDP(buf, oob)
		if err != nil {
			return err
		}
		// An unreachable asker is no failure of the server.
		_, _, _ = p.WriteMsgUDP([]byte(plain(from)+"\n"), asked(oob[:oobn]), from)
	}
}

// asked turns what came with a datagram, the address it was sent to, into what
// sends one from there.
func asked(oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO {
			return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])})
		}
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(messages) == 1 {
			// struct in_pktinfo of ip(7): interface, local address, header's
			// destination.
			return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[4:8])})
		}
	}
	return nil
}

// plain is an address with an IPv4 one written as such, though the socket may
// have been one of both families.
func plain(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}

// dial returns the line that the server answers: who we are to it.
func dial(network, addr string, timeout time.Duration) (string, error) {
	deadline := time.Now().Add(timeout)
	c, err := net.DialTimeout(network, addr, timeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return "", err
	}
	var line string
	if strings.HasPrefix(network, "udp") {
		line, err = ask(c, deadline)
	} else {
		line, err = bufio.NewReader(c).ReadString('\n')
	}
	if err != nil {
		return "", fmt.Errorf("connected to %s, but there is no answer: %w", addr, err)
	}
	return strings.TrimSpace(line), nil
}

// askEvery is how often a datagram is sent again, as TCP does with its first
// segment (RFC 6298): one that is lost is no news.
const askEvery = time.Second

// ask sends a datagram until there is an answer.
func ask(c net.Conn, deadline time.Time) (string, error) {
	buf := make([]byte, 1024)
	for {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
		again := time.Now().Add(askEvery)
		if again.After(deadline) {
			again = deadline
		}
		if err := c.SetReadDeadline(again); err != nil {
			return "", err
		}
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline) {
			continue
		}
		return string(buf[:n]), err
	}
}

// blockSize is the size of a numbered block: small enough to be one segment,
// so that a gap is the network's.
const blockSize = 512

// stream sends a block every interval for as long as d, or until stop
// yields, and checks that each comes back, in order. It fails when nothing
// comes back for stall.
func stream(addr string, d, interval, stall time.Duration, stop <-chan os.Signal, out io.Writer) error {
	c, err := net.DialTimeout("tcp", addr, stall)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(stall)); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("connected to %s, but there is no answer: %w", addr, err)
	}
	fmt.Fprint(out, "streaming as ", line)

	type result struct {
		n   uint64
		err error
	}
	sent := make(chan result, 1)
	go func() {
		n, err := sendBlocks(c.(*net.TCPConn), d, interval, stop)
		sent <- result{n, err}
	}()

	var count uint64
	var longest time.Duration
	block := make([]byte, blockSize)
	last := time.Now()
	for {
		if err := c.SetReadDeadline(time.Now().Add(stall)); err != nil {
			return err
		}
		_, err := io.ReadFull(r, block)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the stream to %s broke after %d blocks: %w", addr, count, err)
		}
		if n := binary.BigEndian.Uint64(block); n != count {
			return fmt.Errorf("the stream to %s is corrupt: block %d came back as %d", addr, count, n)
		}
		now := time.Now()
		longest = max(longest, now.Sub(last))
		last = now
		count++
	}
	// The server closes after it has echoed all that we sent.
	all := <-sent
	if all.err != nil {
		return fmt.Errorf("the stream to %s broke after %d blocks: %w", addr, count, all.err)
	}
	if count != all.n {
		return fmt.Errorf("the stream to %s ended after %d of %d blocks", addr, count, all.n)
	}
	fmt.Fprintf(out, "blocks %d longest gap %s\n", count, longest.Round(time.Millisecond))
	return nil
}

// blocks is how many blocks a stream of length d has.
func blocks(d, interval time.Duration) uint64 { return uint64(d/interval) + 1 }

// sendBlocks returns how many it has sent.
func sendBlocks(c *net.TCPConn, d, interval time.Duration, stop <-chan os.Signal) (n uint64, err error) {
	block := make([]byte, blockSize)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for n < blocks(d, interval) {
		binary.BigEndian.PutUint64(block, n)
		if _, err := c.Write(block); err != nil {
			return n, err
		}
		n++
		select {
		case <-ticker.C:
		case <-stop:
			return n, c.CloseWrite()
		}
	}
	return n, c.CloseWrite()
}
