// Package rtnl is a route netlink socket for what the netlink library has no
// call for: many changes in one send, and dumps that are parsed as they come. It
// waits for the kernel in the calling thread, which costs less than to be woken.
package rtnl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// batchMessages and batchBytes bound one send. The kernel refuses more
	// than its send buffer, 212,992 bytes by default of which bookkeeping
	// takes a third; and each message that fails costs a reply in the
	// receive buffer.
	batchMessages = 256
	batchBytes    = 96 << 10
	// receiveBuffer is asked for in bytes, for the replies of a batch of
	// which every message fails.
	receiveBuffer = 1 << 20
	// replyBytes is more than the kernel puts into one datagram (32 KiB).
	replyBytes = 64 << 10
	// fewBytes is enough for replies to a few changes, in bytes.
	fewBytes = 4 << 10
)

// Socket options and limits of linux/netlink.h.
const (
	netlinkCapAck    = 10 // a reply to a failed message does not repeat it
	netlinkExtAck    = 11 // a reply says in words what is wrong
	netlinkStrictChk = 12 // the kernel filters dumps

	nlmsgerrMsg = 1 // NLMSGERR_ATTR_MSG: those words
)

// Reasons why a dump is not whole, or replies are not all.
var (
	ErrInterrupted = errors.New("the tables kept changing while they were read")
	ErrOverflow    = errors.New("replies were lost")
)

// Wire is the datagram socket below a Conn.
type Wire interface {
	Send(b []byte) error
	// Receive fills b with one datagram; ErrOverflow says that some are lost.
	Receive(b []byte) (n int, err error)
	// Drain throws away what has been received.
	Drain()
}

// Conn is used by one goroutine at a time.
type Conn struct {
	// FD is the socket's, for the ioctls of its namespace's devices.
	FD int
	// Wire is what the socket is written to and read by; tests put others in.
	Wire Wire
	seq  uint32
	buf  []byte
	out  []byte
}

// Message is one request that changes something.
type Message struct {
	Type, Flags uint16
	Body        []byte
	// What names the change in errors.
	What fmt.Stringer
	// AbsentOK makes it a success that there is nothing to delete.
	AbsentOK bool
}

// Error is one message's failure.
type Error struct {
	Message Message
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %v%s", e.Message.What, e.Err, hint(e.Message, e.Err))
}

func (e *Error) Unwrap() error { return e.Err }

// Dial opens a socket in the network namespace of the calling thread. bulk
// makes room for dumps and for many replies at once.
func Dial(bulk bool) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// None of these is essential: older kernels lack some, and without
	// CAP_NET_ADMIN in the first user namespace the buffer stays smaller.
	for _, option := range []int{netlinkCapAck, netlinkExtAck, netlinkStrictChk} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1)
	}
	size := fewBytes
	if bulk {
		size = replyBytes
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	}
	return &Conn{FD: fd, Wire: socket(fd), buf: make([]byte, size)}, nil
}

// Close closes the socket.
func (c *Conn) Close() { unix.Close(c.FD) }

// SetTimeout bounds each send and each wait for a reply.
func (c *Conn) SetTimeout(d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	return errors.Join(
		unix.SetsockoptTimeval(c.FD, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptTimeval(c.FD, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
}

// Apply makes all changes that can be made, in batches, and answers with one
// error for each that could not, and how many those are. An error that ends
// the conversation counts for all changes that were still to come.
func (c *Conn) Apply(ctx context.Context, msgs []Message) (failed int, errs []error) {
	for start := 0; start < len(msgs); {
		if err := ctx.Err(); err != nil {
			return failed + len(msgs) - start, append(errs, err)
		}
		end, size := start, 0
		for end < len(msgs) && end-start < batchMessages && size < batchBytes {
			size += unix.SizeofNlMsghdr + len(msgs[end].Body)
			end++
		}
		batch := msgs[start:end]
		results, err := c.batch(batch)
		if errors.Is(err, ErrOverflow) {
			results, err = c.oneByOne(ctx, batch)
		}
		if err != nil {
			return failed + len(msgs) - start, append(errs, fmt.Errorf("%s: %w", batch[0].What, err))
		}
		failed += len(results)
		errs = append(errs, results...)
		start = end
	}
	return failed, errs
}

// oneByOne applies a batch again of whose replies some were lost: doing a
// change twice does no harm.
func (c *Conn) oneByOne(ctx context.Context, batch []Message) (results []error, err error) {
	for i := range batch {
		c.Wire.Drain()
		if err := ctx.Err(); err != nil {
			return results, err
		}
		more, err := c.batch(batch[i : i+1])
		if err != nil {
			return results, err
		}
		results = append(results, more...)
	}
	return results, nil
}

// batch sends some changes at once, asks for a reply to the last only, and
// reads until that has come. Changes that fail have a reply in any case.
func (c *Conn) batch(batch []Message) (results []error, err error) {
	first := c.seq + 1
	c.out = c.out[:0]
	for i := range batch {
		flags := batch[i].Flags
		if i == len(batch)-1 {
			flags |= unix.NLM_F_ACK
		}
		c.seq++
		c.out = appendHeader(c.out, batch[i].Type, flags, c.seq, batch[i].Body)
	}
	if err := c.Wire.Send(c.out); err != nil {
		return nil, err
	}
	for done := false; !done; {
		n, err := c.Wire.Receive(c.buf)
		if err != nil {
			return nil, err
		}
		err = eachMessage(c.buf[:n], func(h header, payload []byte) error {
			// Unsigned: a reply to something earlier is far beyond the end.
			i := int(h.seq - first)
			if i >= len(batch) || h.typ != unix.NLMSG_ERROR {
				return nil
			}
			done = done || h.seq == c.seq
			cause := replyError(h, payload)
			m := batch[i]
			if cause == nil || m.AbsentOK && isAbsent(cause) {
				return nil
			}
			results = append(results, &Error{m, cause})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

// isAbsent tells whether a deletion failed because there was nothing to delete.
func isAbsent(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)
}

// hint is what to do about some errors that say too little themselves.
func hint(m Message, err error) string {
	switch {
	case m.Type == unix.RTM_NEWNEIGH && errors.Is(err, unix.ENOBUFS):
		return ": the neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3 and net.ipv6.neigh.default.gc_thresh3"
	case errors.Is(err, unix.EPERM):
		return ": it takes CAP_NET_ADMIN"
	}
	return ""
}

// Dump calls f with each entry that the kernel answers a dump request with.
// The payload is only valid during the call. After ErrInterrupted or
// errOverflow the entries seen are not all there are.
func (c *Conn) Dump(typ uint16, body []byte, f func(payload []byte) error) error {
	c.seq++
	c.out = appendHeader(c.out[:0], typ, unix.NLM_F_DUMP, c.seq, body)
	if err := c.Wire.Send(c.out); err != nil {
		return err
	}
	interrupted := false
	for done := false; !done; {
		n, err := c.Wire.Receive(c.buf)
		if err != nil {
			c.Wire.Drain()
			return err
		}
		err = eachMessage(c.buf[:n], func(h header, payload []byte) error {
			if h.seq != c.seq {
				return nil
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch h.typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				return replyError(h, payload)
			}
			return f(payload)
		})
		if err != nil {
			c.Wire.Drain()
			return err
		}
	}
	if interrupted {
		return ErrInterrupted
	}
	return nil
}

// header is the part of struct nlmsghdr that matters in a reply.
type header struct {
	typ, flags uint16
	seq        uint32
}

func appendHeader(b []byte, typ, flags uint16, seq uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // from us, as the kernel sees itself
	return pad(append(b, body...))
}

// eachMessage calls f with each message of a datagram.
func eachMessage(b []byte, f func(h header, payload []byte) error) error {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return fmt.Errorf("netlink message of %d bytes in %d", size, len(b))
		}
		h := header{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
		}
		if err := f(h, b[unix.SizeofNlMsghdr:size]); err != nil {
			return err
		}
		b = b[min(Align(size), len(b)):]
	}
	return nil
}

// replyError is the error in an NLMSG_ERROR or NLMSG_DONE, with the kernel's
// words on it where it has any; nil if there is none.
func replyError(h header, payload []byte) error {
	if len(payload) < 4 {
		return nil // DONE without a payload
	}
	errno := int32(binary.NativeEndian.Uint32(payload))
	if errno >= 0 {
		return nil
	}
	var err error = unix.Errno(-errno)
	if h.flags&unix.NLM_F_ACK_TLVS == 0 {
		return err
	}
	rest := payload[4:]
	if h.typ == unix.NLMSG_ERROR {
		// The failed message comes before the attributes: its header only
		// if NLM_F_CAPPED is set, else the whole of it.
		skip := unix.SizeofNlMsghdr
		if h.flags&unix.NLM_F_CAPPED == 0 && len(rest) >= 4 {
			skip = Align(int(binary.NativeEndian.Uint32(rest)))
		}
		rest = rest[min(max(skip, 0), len(rest)):]
	}
	for typ, value := range Attrs(rest) {
		if typ == nlmsgerrMsg {
			return fmt.Errorf("%w (%s)", err, unix.ByteSliceToString(value))
		}
	}
	return err
}

// socket is the wire to the kernel.
type socket int

func (s socket) Send(b []byte) error {
	for {
		err := unix.Sendto(int(s), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return timedOut(err)
		}
	}
}

func (s socket) Receive(b []byte) (int, error) {
	for {
		n, from, err := unix.Recvfrom(int(s), b, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOBUFS:
			return 0, ErrOverflow
		case err != nil:
			return 0, timedOut(err)
		case n > len(b):
			return 0, fmt.Errorf("netlink datagram of %d bytes is larger than the buffer", n)
		}
		// Other processes may send to us; only the kernel has the id 0.
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 {
			return n, nil
		}
	}
}

func (s socket) Drain() {
	var b [1]byte // the rest of a datagram is dropped with it
	for {
		// An overflow is reported once and is no reason to stop.
		_, _, err := unix.Recvfrom(int(s), b[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err != nil && err != unix.ENOBUFS && err != unix.EINTR {
			return
		}
	}
}

// timedOut makes a deadline of what the socket says when its timeout is over.
func timedOut(err error) error {
	if err == unix.EAGAIN {
		return fmt.Errorf("the kernel does not answer: %w", os.ErrDeadlineExceeded)
	}
	return err
}
