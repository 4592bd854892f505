package watch

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// TestMain fails when a goroutine is left.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watching runs a Watch in a network namespace of the test's own, in which the
// test is from now on. The Watch keeps every signal.
func watching(t *testing.T, open func() (io.ReadCloser, error)) *Watch {
	t.Helper()
	ns := netnstest.Enter(t)
	w := New(slog.New(slog.DiscardHandler))
	w.changed = make(chan string, 10000)
	if open != nil {
		w.open = open
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		// The thread stays locked, and ends with the goroutine.
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			t.Error(err)
			return
		}
		w.Run(ctx)
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	w.next(t)
	return w
}

// next is the next signal. The deadline only ends a test that hangs.
func (w *Watch) next(t *testing.T) string {
	t.Helper()
	select {
	case what := <-w.Changed():
		return what
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is heard of the change")
		return ""
	}
}

// heard is all that was signalled until now, in words, each once.
func (w *Watch) heard(t *testing.T) string {
	t.Helper()
	netnstest.Run(t, "ip link add m-end type bridge")
	netnstest.Run(t, "ip link del m-end")
	var out []string
	for {
		what := w.next(t)
		if what == "device m-end was deleted" {
			return strings.Join(out, "; ")
		}
		if !strings.Contains(what, "m-end") && (len(out) == 0 || out[len(out)-1] != what) {
			out = append(out, what)
		}
	}
}

func TestHeard(t *testing.T) {
	w := watching(t, nil)
	for _, line := range []string{
		"ip link add vtep1024 type vxlan id 1024 dstport 64000 nolearning local 127.0.0.1",
		"ip link set vtep1024 addrgenmode none",
		"ip link set vtep1024 up",
		"ip addr add 44.128.0.1/20 dev vtep1024",
		"ip link add m-dcos type bridge",
		"ip link set m-dcos addrgenmode none",
		"ip link set m-dcos up",
		"ip link add under type veth peer name wire",
		"ip link set under addrgenmode none",
		"ip link set under up",
		"ip link set wire addrgenmode none",
		"ip link set wire up",
		"ip addr add 10.0.0.1/24 dev under",
	} {
		netnstest.Run(t, line)
	}
	under, err := exec.Command("cat", "/proc/net/dev_mcast").Output()
	if err != nil {
		t.Fatal(err)
	}
	index := 0
	for line := range strings.Lines(string(under)) {
		if f := strings.Fields(line); f[1] == "under" {
			index = int(f[0][0] - '0')
		}
	}
	w.SetUnderlay(index, netip.MustParseAddr("10.0.0.1"))
	w.heard(t)
	for _, tt := range []struct{ change, want string }{
		{"ip neigh add 44.128.0.2 lladdr 70:b3:d5:80:00:02 dev vtep1024 nud permanent", "neighbour"},
		{"bridge fdb append 70:b3:d5:80:00:02 dev vtep1024 dst 10.0.0.2 self", "forwarding entry"},
		{"ip route add 9.0.1.0/24 via 44.128.0.2 dev vtep1024 proto 44", "route on vtep1024"},
		{"ip neigh del 44.128.0.2 dev vtep1024", "neighbour"},
		{"bridge fdb del 70:b3:d5:80:00:02 dev vtep1024 dst 10.0.0.2 self", "forwarding entry"},
		{"ip route del 9.0.1.0/24", "route on vtep1024"},
		{"ip route del 44.128.0.0/20 dev vtep1024", "route on vtep1024"},
		{"ip route add 9.9.9.0/24 via 10.0.0.7 dev under proto 44", "route of ours"},
		{"ip link set vtep1024 mtu 1300", "device vtep1024"},
		{"ip link set vtep1024 address 02:00:00:00:00:07", "device vtep1024"},
		{"ip link set m-dcos down", "device m-dcos"},
		{"ip addr add 9.0.0.1/25 dev m-dcos", "address of m-dcos"},
		{"ip link set m-dcos name other", "device m-dcos is called other"},
		{"ip link set other mtu 1300", ""},
		{"ip link set other name m-dcos", "device m-dcos"},
		{"ip link set under mtu 1400", "underlay device under"},
		{"ip addr add 10.0.0.9/24 dev under", "underlay address 10.0.0.9"},
		{"ip addr add 10.0.0.1/32 dev wire", "underlay address 10.0.0.1"},
		{"sysctl -qw net.ipv4.ip_forward=1", "packet forwarding"},
		{"sysctl -qw net.ipv6.conf.all.forwarding=1", "packet forwarding"},

		// What is not ours, and what an unchanging host does.
		{"ip link add dov1 type veth peer name inside", ""},
		{"ip link set dov1 up", ""},
		{"ip link set wire mtu 1400", ""},
		{"ip addr add 10.1.0.1/24 dev wire", ""},
		{"ip route add 10.2.0.0/16 via 10.1.0.2 dev wire", ""},
		{"ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:09 dev wire", ""},
		{"ip neigh add 44.128.0.9 dev vtep1024 nud incomplete", ""},
		{"sysctl -qw net.ipv4.conf.wire.forwarding=0", ""},

		{"ip link del vtep1024", "device vtep1024 was deleted"},
	} {
		netnstest.Run(t, tt.change)
		if got := w.heard(t); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: heard %q, want %q", tt.change, got, tt.want)
		}
	}
}

// TestOffload: whoever turns a device's offload on or off is heard.
func TestOffload(t *testing.T) {
	w := watching(t, nil)
	netnstest.Run(t, "ip link add vtep1024 type vxlan id 1024 dstport 64000 local 127.0.0.1")
	netnstest.Run(t, "ip link set vtep1024 up")
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	for on := range uint32(2) {
		w.heard(t)
		setTxChecksum(t, socket, "vtep1024", on)
		if got := w.heard(t); got != "device vtep1024" {
			t.Errorf("tx checksum offload set to %d: heard %q", on, got)
		}
	}
}

// setTxChecksum is ethtool -K with tx, by ETHTOOL_STXCSUM of linux/ethtool.h.
func setTxChecksum(t *testing.T, socket int, device string, on uint32) {
	t.Helper()
	value := [2]uint32{0x17, on}
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:], device)
	req.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		t.Fatal(errno)
	}
	runtime.KeepAlive(&value)
}

// TestDevicesOfBefore: what was there before the watch is known by name.
func TestDevicesOfBefore(t *testing.T) {
	opened := make(chan struct{})
	var once sync.Once
	w := watching(t, func() (io.ReadCloser, error) {
		first := false
		once.Do(func() { first = true })
		if !first {
			<-opened
			return subscribe()
		}
		return overflow{}, nil
	})
	netnstest.Run(t, "ip link add m-dcos type bridge")
	close(opened)
	// Events were lost, so it begins anew, and says that all may be changed.
	if got := w.next(t); got != "the watch began" {
		t.Errorf("after an overflow it says %q", got)
	}
	netnstest.Run(t, "ip addr add 9.0.0.1/25 dev m-dcos")
	if got := w.heard(t); !strings.HasPrefix(got, "address of m-dcos") {
		t.Errorf("heard %q", got)
	}
}

// overflow is a socket that has lost events.
type overflow struct{}

func (overflow) Read([]byte) (int, error) { return 0, unix.ENOBUFS }
func (overflow) Close() error             { return nil }

func TestSignalsRunTogether(t *testing.T) {
	w := New(slog.New(slog.DiscardHandler))
	w.signal("first")
	w.signal("second")
	if got := <-w.Changed(); got != "first" {
		t.Errorf("got %q", got)
	}
	select {
	case what := <-w.Changed():
		t.Errorf("%q is a second signal", what)
	default:
	}
}

func TestNoSocket(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	w := New(slog.New(slog.DiscardHandler))
	w.open = func() (io.ReadCloser, error) {
		cancel()
		return nil, errors.New("no")
	}
	w.Run(ctx) // it ends with ctx
}

// FuzzAbout: no message, however cut, is read beyond its end.
func FuzzAbout(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWLINK), make([]byte, sizeofIfInfo))
	f.Add(uint16(unix.RTM_NEWNEIGH), make([]byte, sizeofNeigh-1))
	f.Add(uint16(unix.RTM_NEWNETCONF), []byte{2, 0, 0, 0, 6, 0, 1, 0, 255, 255})
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		w := New(slog.New(slog.DiscardHandler))
		w.ours = map[uint32]string{0: "vtep1024", 1: "m-dcos"}
		for _, typ := range []uint16{
			typ, unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_NEWROUTE,
			unix.RTM_NEWNEIGH, unix.RTM_NEWNETCONF,
		} {
			w.about(typ, b)
		}
	})
}

// TestUnknownNeighbour: somebody asks for an address that nobody has, which is
// nothing to mend; that a neighbour goes is.
func TestUnknownNeighbour(t *testing.T) {
	w := New(slog.New(slog.DiscardHandler))
	w.ours = map[uint32]string{7: "vtep1024"}
	for _, tt := range []struct {
		typ, state uint16
		want       string
	}{
		{unix.RTM_NEWNEIGH, unix.NUD_INCOMPLETE, ""},
		{unix.RTM_NEWNEIGH, unix.NUD_FAILED, ""},
		{unix.RTM_NEWNEIGH, unix.NUD_NOARP, ""},
		{unix.RTM_NEWNEIGH, unix.NUD_PERMANENT, "neighbour"},
		{unix.RTM_NEWNEIGH, unix.NUD_STALE, "neighbour"},
		{unix.RTM_DELNEIGH, unix.NUD_FAILED, "neighbour"},
	} {
		b := make([]byte, sizeofNeigh)
		b[0] = unix.AF_INET
		binary.NativeEndian.PutUint32(b[4:], 7)
		binary.NativeEndian.PutUint16(b[8:], tt.state)
		if got := w.about(tt.typ, b); got != tt.want {
			t.Errorf("message %d with state %#x: %q, want %q", tt.typ, tt.state, got, tt.want)
		}
	}
}
