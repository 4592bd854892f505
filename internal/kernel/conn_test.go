package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// interrupting is the real wire, but marks the next dumps as interrupted and
// leaves entries out of them.
type interrupting struct {
	rtnl.Wire
	dumps int
}

func (w *interrupting) Receive(b []byte) (int, error) {
	n, err := w.Wire.Receive(b)
	if err != nil || w.dumps == 0 {
		return n, err
	}
	for rest := b[:n]; len(rest) >= unix.SizeofNlMsghdr; {
		size := int(binary.NativeEndian.Uint32(rest))
		switch typ := binary.NativeEndian.Uint16(rest[4:]); typ {
		case unix.NLMSG_DONE:
			flags := binary.NativeEndian.Uint16(rest[6:])
			binary.NativeEndian.PutUint16(rest[6:], flags|unix.NLM_F_DUMP_INTR)
			w.dumps--
		case unix.RTM_NEWROUTE, unix.RTM_NEWNEIGH:
			// As if the entry had been skipped: one of a device 0.
			clear(rest[unix.SizeofNlMsghdr:size])
		}
		rest = rest[min(rtnl.Align(size), len(rest)):]
	}
	return n, nil
}

func TestInterruptedDumpIsRepeated(t *testing.T) {
	k := kernelWithVTEP(t)
	want := peersOf(agents(5))
	syncPeers(t, k, want)
	k.conn.Wire = &interrupting{Wire: k.conn.Wire, dumps: 3}
	if s := syncPeers(t, k, want); s.Changed() {
		t.Errorf("it changed:\n%s", s.Changes)
	}
}

func TestNoPruneAfterInterruptedDump(t *testing.T) {
	k := kernelWithVTEP(t)
	want := peersOf(agents(5))
	syncPeers(t, k, want)
	whole := k.conn.Wire
	k.conn.Wire = &interrupting{Wire: whole, dumps: 1000}
	_, err := k.SyncPeers(context.Background(), "vtep1024", dataplane.NewPeers())
	if !errors.Is(err, rtnl.ErrInterrupted) {
		t.Fatalf("got %v", err)
	}
	contains(t, err.Error(), "list routes on vtep1024")
	k.conn.Wire = whole
	holds(t, k, want)
}

// TestOverflow lets every message of a batch fail, with room for a few
// replies only.
func TestOverflow(t *testing.T) {
	k := kernelWithVTEP(t)
	if err := unix.SetsockoptInt(k.conn.FD, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		t.Fatal(err)
	}
	overflows := &counting{Wire: k.conn.Wire}
	k.conn.Wire = overflows
	index := uint32(link(t, "vtep1024").Attrs().Index)
	good := dataplane.NewPeers()
	var msgs []rtnl.Message
	const each = 300
	for i := range each {
		e := dataplane.FDBEntry{MAC: network.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, Dst: netip.MustParseAddr("192.0.0.9")}
		good.FDB[e.MAC] = e.Dst
		set := rtnl.Message{Type: unix.RTM_NEWNEIGH, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Body: appendFDB(nil, e, index), What: e}
		bad := set
		bad.Body = appendFDB(nil, e, index+1000)
		msgs = append(msgs, set, bad)
	}
	failed, errs := k.conn.Apply(context.Background(), msgs)
	if failed != each || len(errs) != each {
		t.Errorf("%d failed with %d errors: %v", failed, len(errs), errs[0])
	}
	for _, err := range errs {
		if !errors.Is(err, unix.ENODEV) {
			t.Fatalf("got %v", err)
		}
	}
	if overflows.n == 0 {
		t.Error("nothing overflowed: the test tests nothing")
	}
	holds(t, open(t), good)
}

// counting counts overflows.
type counting struct {
	rtnl.Wire
	n int
}

func (w *counting) Receive(b []byte) (int, error) {
	n, err := w.Wire.Receive(b)
	if errors.Is(err, rtnl.ErrOverflow) {
		w.n++
	}
	return n, err
}

// broken is a kernel that takes everything and says nothing.
type broken struct{ rtnl.Wire }

func (broken) Send([]byte) error { return nil }

func TestNoAnswer(t *testing.T) {
	k := kernelWithVTEP(t)
	k.conn.Wire = broken{k.conn.Wire}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := k.SyncPeers(ctx, "vtep1024", peersOf(agents(3)))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestReplies feeds the parsers with anything.
func TestReplies(t *testing.T) {
	d := device{name: "vtep1024", index: 1}
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		if len(b) >= 4 && rapid.Bool().Draw(t, "right length") {
			binary.NativeEndian.PutUint32(b, uint32(len(b)))
		}
		d.parseRoute(b)
		d.parseNeigh(b, unix.AF_INET6)
		hopsUse(b, 1)
	})
}

// TestBodies: what is sent is read back the same by the parsers of dumps.
func TestBodies(t *testing.T) {
	d := device{name: "vtep1024", index: 300, mac: mac("70:b3:d5:80:00:01")}
	for dst, gateway := range map[string]string{"9.0.1.0/24": "44.128.0.2", "fd01:b:0:0:1::/80": "fd01:a::2", "0.0.0.0/0": "44.128.0.2"} {
		e := dataplane.RouteEntry{Dst: netip.MustParsePrefix(dst), Route: dataplane.Route{Gateway: netip.MustParseAddr(gateway), Metric: 7}}
		r, ours := d.parseRoute(appendRoute(nil, e, d.index, rtMsg{}))
		if !ours || !r.plain || r.dst != e.Dst || r.route != e.Route {
			t.Errorf("%s became %v", e, r)
		}
	}
	m := mac("70:b3:d5:80:00:02")
	for _, text := range []string{"44.128.0.2", "fd01:a::2"} {
		ip := netip.MustParseAddr(text)
		n, ours := d.parseNeigh(appendNeigh(nil, dataplane.NeighEntry{IP: ip, MAC: m}, d.index), familyOf(ip))
		if !ours || !n.plain || n.ip != ip || n.mac != m {
			t.Errorf("neighbour %s became %v", text, n)
		}
		n, ours = d.parseNeigh(appendFDB(nil, dataplane.FDBEntry{MAC: m, Dst: ip}, d.index), unix.AF_BRIDGE)
		if !ours || !n.plain || n.ip != ip || n.mac != m {
			t.Errorf("forwarding entry %s became %v", text, n)
		}
	}
	own := rtnl.AppendAttr(ndMsg{family: unix.AF_BRIDGE, index: d.index, state: nudPermanent}.append(nil), ndaLLAddr, d.mac[:])
	if n, ours := d.parseNeigh(own, unix.AF_BRIDGE); ours {
		t.Errorf("the kernel's entry for the device itself became %v", n)
	}
}
