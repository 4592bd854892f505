package contest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/bench/report"
	"github.com/dcos/dcos-overlay/bench/stat"
)

const (
	// chunk is what is written at a time, in bytes.
	chunk = 128 << 10
	// warmStream is what is sent before the clock starts, in chunks, for the
	// windows to open, and warmPings likewise.
	warmStream, warmPings = 128, 200
	// pings are the round trips of one measurement.
	pings = 2000
	// congestion is the congestion control of both ends, which every kernel
	// has. BBR, the default of many, sends as fast as it has come to believe
	// that the path is: the same path differs from itself by a third then.
	congestion = "reno"
	// streamTimeout bounds how long an end waits for the other.
	streamTimeout = 20 * time.Second
)

// Data measures a TCP connection between containers on two hosts, over the
// overlay and over a VXLAN that is made by hand, on hosts that have nothing
// else, and on hosts that masquerade: that rule alone makes the kernel track
// connections.
func (c *Contest) Data() ([]report.Row, error) {
	c.Log("TCP between two hosts")
	ours, err := c.overlayPath()
	if err != nil {
		return nil, err
	}
	hand, err := c.handPath("h", 11, false)
	if err != nil {
		return nil, err
	}
	masq, err := c.handPath("m", 12, true)
	if err != nil {
		return nil, err
	}
	measure := func(what func(*Contest, path) (float64, error)) ([]stat.Sample, error) {
		return c.duel(c.Slow,
			func(int) (float64, error) { return what(c, ours) },
			func(int) (float64, error) { return what(c, hand) },
			func(int) (float64, error) { return what(c, masq) })
	}
	// The processor time of what was sent is less moved by whatever else the
	// machine does.
	used := map[path]stat.Sample{}
	through, err := measure(func(c *Contest, p path) (float64, error) {
		rate, cost, err := c.throughput(p)
		used[p] = append(used[p], cost)
		return rate, err
	})
	if err != nil {
		return nil, err
	}
	trip, err := measure(func(c *Contest, p path) (float64, error) { return c.roundTrip(p, apart) })
	if err != nil {
		return nil, err
	}
	// Where nobody is woken on another processor, which takes longer than all
	// the rest and never the same time, what the path itself takes shows.
	short, err := measure(func(c *Contest, p path) (float64, error) { return c.roundTrip(p, together) })
	if err != nil {
		return nil, err
	}
	rows := func(what, unit string, s []stat.Sample, goal float64, atLeast bool) []report.Row {
		row := report.Row{Part: "stream", What: what + ", container to container across hosts", Ours: s[0].Sum(), Against: "hand-made VXLAN", Peer: s[1].Sum(),
			Ratio: stat.Ratios(s[0], s[1]).Sum(), Unit: unit, Goal: goal, AtLeast: atLeast}
		same := row
		same.Against, same.Peer, same.Ratio = "the same, masquerading", s[2].Sum(), stat.Ratios(s[0], s[2]).Sum()
		return []report.Row{row, same}
	}
	costs := []stat.Sample{used[ours], used[hand], used[masq]}
	return slices.Concat(
		rows("TCP throughput", "Gbit/s", through, 0.98, true),
		rows("TCP processor time for a GB, both ends", "ms", costs, 0, false),
		rows("TCP round trip", "µs", trip, 1.02, false),
		rows("TCP round trip, both ends on one processor", "µs", short, 0, false)), nil
}

// connect makes a connection by p. Sockets are of the network in which they
// are made, whichever thread uses them then.
func (c *Contest) connect(p path) (from, to *os.File, err error) {
	var l net.Listener
	err = c.Machine.In(p.to, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(p.addr, 0).String())
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	var near net.Conn
	err = c.Machine.In(p.from, func() (err error) {
		near, err = net.DialTimeout("tcp", l.Addr().String(), streamTimeout)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	defer far.Close()
	if from, err = blocking(near); err != nil {
		return nil, nil, err
	}
	if to, err = blocking(far); err != nil {
		return nil, nil, errors.Join(err, from.Close())
	}
	return from, to, nil
}

// blocking is conn for calls that block a thread in the kernel: Go's poller
// would have another thread woken up in between.
func blocking(conn net.Conn) (*os.File, error) {
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd()) // makes it block
	limit := unix.NsecToTimeval(streamTimeout.Nanoseconds())
	for _, side := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, side, &limit); err != nil {
			return nil, errors.Join(fmt.Errorf("bound how long a socket waits: %w", err), f.Close())
		}
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion); err != nil {
		return nil, errors.Join(fmt.Errorf("choose congestion control %s: %w", congestion, err), f.Close())
	}
	return f, nil
}

// placement is which processors the ends of a connection run on: where the
// kernel puts them would decide more than the path.
type placement bool

const (
	// apart is each on one of its own, if there are two.
	apart placement = false
	// together is both on one.
	together placement = true
)

// ends runs the two ends of a connection. It answers with the processor time
// of both, in which is that of the packets that the kernel handles meanwhile.
func ends(where placement, from, to func() error) (time.Duration, error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return 0, fmt.Errorf("ask for the processors: %w", err)
	}
	var allowed []int
	for i := range len(all) * 64 {
		if all.IsSet(i) {
			allowed = append(allowed, i)
		}
	}
	other := allowed[len(allowed)-1]
	if where == together {
		other = allowed[0]
	}
	first, second := pinned(allowed[0], from), pinned(other, to)
	a, b := <-first, <-second
	return a.spent + b.spent, errors.Join(a.err, b.err)
}

// ended is how an end of a connection ended, and its processor time.
type ended struct {
	spent time.Duration
	err   error
}

// pinned runs f on one processor.
func pinned(cpu int, f func() error) <-chan ended {
	done := make(chan ended, 1)
	go func() {
		// The thread is never unlocked, so that it ends with the goroutine.
		runtime.LockOSThread()
		var only unix.CPUSet
		only.Set(cpu)
		if err := unix.SchedSetaffinity(0, &only); err != nil {
			done <- ended{err: fmt.Errorf("stay on processor %d: %w", cpu, err)}
			return
		}
		var before, after unix.Rusage
		err := errors.Join(unix.Getrusage(unix.RUSAGE_THREAD, &before), f(), unix.Getrusage(unix.RUSAGE_THREAD, &after))
		done <- ended{spent(after) - spent(before), err}
	}()
	return done
}

func spent(u unix.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }

// throughput is what arrives, in Gbit/s, and the processor time of both ends
// for it, in milliseconds for 1e9 bytes.
func (c *Contest) throughput(p path) (rate, cost float64, err error) {
	from, to, err := c.connect(p)
	if err != nil {
		return 0, 0, err
	}
	var took time.Duration
	both, err := ends(apart, func() error {
		defer from.Close()
		data := make([]byte, chunk)
		for range warmStream + c.Chunks {
			if _, err := from.Write(data); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		defer to.Close()
		if err := take(to, warmStream*chunk); err != nil {
			return err
		}
		began := time.Now()
		err := take(to, c.Chunks*chunk)
		took = time.Since(began)
		return err
	})
	return float64(c.Chunks*chunk) * 8 / 1e9 / took.Seconds(), ms(both) * 1e9 / float64((warmStream+c.Chunks)*chunk), err
}

// take reads n bytes.
func take(f *os.File, n int) error {
	data := make([]byte, chunk)
	for n > 0 {
		got, err := f.Read(data[:min(chunk, n)])
		if err != nil {
			return err
		}
		n -= got
	}
	return nil
}

// roundTrip is that of one byte, in microseconds, the median of many.
func (c *Contest) roundTrip(p path, where placement) (float64, error) {
	from, to, err := c.connect(p)
	if err != nil {
		return 0, err
	}
	const rounds = warmPings + pings
	trips := make(stat.Sample, 0, rounds)
	_, err = ends(where, func() error {
		defer from.Close()
		one := make([]byte, 1)
		for range rounds {
			began := time.Now()
			if _, err := from.Write(one); err != nil {
				return err
			}
			if _, err := from.Read(one); err != nil {
				return err
			}
			trips = append(trips, float64(time.Since(began).Nanoseconds())/1e3)
		}
		return nil
	}, func() error {
		defer to.Close()
		one := make([]byte, 1)
		for range rounds {
			if _, err := to.Read(one); err != nil {
				return err
			}
			if _, err := to.Write(one); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return trips[warmPings:].Sum().Median, nil
}
