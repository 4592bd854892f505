package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Serve starts a server on TCP and UDP at a port, for Dial and Stream of other
// places, and waits until it listens.
func (p *Place) Serve(ctx context.Context, port uint16) (*Process, error) {
	number := strconv.Itoa(int(port))
	proc, err := p.Start(ctx, p.name+"-serve-"+number, "probe", "serve", ":"+number)
	if err != nil {
		return nil, err
	}
	return proc, proc.WaitLog(ctx, "serving\n")
}

// Dial connects by TCP to a place that Serves, and returns who the caller is
// as seen there.
func (p *Place) Dial(ctx context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	return p.dial(ctx, "probe", "dial", "-timeout", dialTimeout, to.String())
}

// DialUDP is Dial by UDP.
func (p *Place) DialUDP(ctx context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	return p.dial(ctx, "probe", "dial", "-udp", "-timeout", dialTimeout, to.String())
}

// dialTimeout bounds one Dial: long enough for one lost SYN, which is sent
// again after 1 s, and again after 3. Datagrams are sent again as often.
const dialTimeout = "5s"

func (p *Place) dial(ctx context.Context, args ...string) (netip.AddrPort, error) {
	out, err := p.Run(ctx, args...)
	if err != nil {
		return netip.AddrPort{}, err
	}
	seen, err := netip.ParseAddrPort(strings.TrimSpace(out))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s: %s: %w", p.name, line(args), err)
	}
	return seen, nil
}

// Stream is one TCP connection that is kept busy for a while.
type Stream struct {
	*Process
}

// Stream starts a connection to a place that Serves and waits until it is
// there.
func (p *Place) Stream(ctx context.Context, to netip.AddrPort, d time.Duration) (*Stream, error) {
	proc, err := p.Start(ctx, p.name+"-stream", "probe", "stream", to.String(), d.String())
	if err != nil {
		return nil, err
	}
	return &Stream{proc}, proc.WaitLog(ctx, "streaming as ")
}

// Finish ends the stream before its time, as Wait would find it then.
func (s *Stream) Finish(ctx context.Context) (longestGap time.Duration, err error) {
	if err := s.Signal(unix.SIGTERM); err != nil {
		return 0, err
	}
	return s.Wait(ctx)
}

// Wait waits for the stream's end. It returns the longest time that nothing
// came back, and an error if the connection broke or changed what it carried.
func (s *Stream) Wait(ctx context.Context) (longestGap time.Duration, err error) {
	if err := s.Process.Wait(ctx); err != nil {
		return 0, err
	}
	_, gap, _ := strings.Cut(s.Log(), "longest gap ")
	longestGap, err = time.ParseDuration(strings.TrimSpace(gap))
	if err != nil {
		return 0, fmt.Errorf("reading the stream's log %q: %w", s.Log(), err)
	}
	return longestGap, nil
}

// DialContext connects from inside the host's network. The address must be a
// numeric one. The caller has to close the connection: while it is open, it
// keeps the network of a host that went down in being.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return h.DialFrom(ctx, netip.Addr{}, network, address)
}

// DialFrom is DialContext for TCP with a source address, which must be one of
// the host's; the zero Addr leaves it to the kernel.
func (h *Host) DialFrom(ctx context.Context, source netip.Addr, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dialling from host %s: %w", h.Name, err)
	}
	var dialer net.Dialer
	if source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	var conn net.Conn
	err := h.Inside(func() (err error) {
		// A numeric address is dialled in this goroutine, so the socket is of
		// this thread's network.
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, fmt.Errorf("dialling from host %s: %w", h.Name, err)
	}
	return conn, nil
}

// Inside runs f in a thread of this process that is in the host's network for
// as long; goroutines that f starts are not.
func (h *Host) Inside(f func() error) error {
	space, err := h.netspace()
	if err != nil {
		return err
	}
	defer space.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- runIn(space, f)
	}()
	return <-done
}

// runIn runs f in another network namespace. The goroutine must be locked to
// its thread, which is unlocked if it is back in its own namespace; else the
// thread ends with the goroutine. Just to leave it to that would not do: the
// runtime keeps a process's first thread, and in that namespace.
func runIn(space netns.NsHandle, f func() error) error {
	own, err := netns.Get()
	if err != nil {
		return err
	}
	defer own.Close()
	if err := netns.Set(space); err != nil {
		return err
	}
	err = f()
	if back := netns.Set(own); back != nil {
		return errors.Join(err, fmt.Errorf("returning to the own network: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// netspace is the host's network namespace, for the caller to close.
func (h *Host) netspace() (netns.NsHandle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pid == 0 {
		return netns.None(), errors.New("it is off")
	}
	return netns.GetFromPid(h.pid)
}

// HTTPClient makes requests from inside the host's network, one connection
// each, to numeric addresses.
func (h *Host) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       h.DialContext,
		DisableKeepAlives: true,
	}}
}

// HTTP makes one request from inside the host's network.
func (h *Host) HTTP(ctx context.Context, method, url string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := h.HTTPClient().Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("host %s: %w", h.Name, err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("host %s: %s %s: reading the answer: %w", h.Name, method, url, err)
	}
	return resp.StatusCode, answer, nil
}
