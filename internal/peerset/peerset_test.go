package peerset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/netnstest"
)

var families = map[string]Set{"IPv4": Of(false), "IPv6": Of(true)}

// addr is the i-th of the addresses that tests use.
func addr(s Set, i int) netip.Addr {
	b := [16]byte{0: 0xfd, 1: 0x17}
	if !s.V6 {
		return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	binary.BigEndian.PutUint32(b[12:], uint32(i))
	return netip.AddrFrom16(b)
}

func addrs(s Set, from, to int) []netip.Addr {
	var out []netip.Addr
	for i := from; i < to; i++ {
		out = append(out, addr(s, i))
	}
	return out
}

// holds fails the test unless the set holds want, in order: by our own reading
// and by the netlink library's.
func holds(t *testing.T, s Set, want []netip.Addr) {
	t.Helper()
	got, there, err := s.Addrs()
	if err != nil || !there || !slices.Equal(got, want) {
		t.Fatalf("%s holds %v (%v, %v), want %v", s.Name, got, there, err, want)
	}
	if size, err := s.Size(); err != nil || size != len(want) {
		t.Fatalf("%s is said to hold %d (%v), and holds %d", s.Name, size, err, len(want))
	}
	library, err := netlink.IpsetList(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	var theirs []netip.Addr
	for _, e := range library.Entries {
		a, _ := netip.AddrFromSlice(e.IP)
		theirs = append(theirs, a)
	}
	slices.SortFunc(theirs, netip.Addr.Compare)
	if !slices.Equal(theirs, want) || library.TypeName != typeName {
		t.Fatalf("%s is a %s with %v for the library, want %v", s.Name, library.TypeName, theirs, want)
	}
}

func sync(t *testing.T, s Set, want []netip.Addr) Change {
	t.Helper()
	change, err := s.Sync(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return change
}

func TestSync(t *testing.T) {
	for name, s := range families {
		t.Run(name, func(t *testing.T) {
			netnstest.Enter(t)
			if _, there, err := s.Addrs(); there || err != nil {
				t.Fatalf("at first: %v, %v", there, err)
			}
			if size, err := s.Size(); size != 0 || err != nil {
				t.Fatalf("at first it is said to hold %d, %v", size, err)
			}
			if got := sync(t, s, nil); got != (Change{Created: true}) {
				t.Errorf("the first Sync did %+v", got)
			}
			holds(t, s, nil)
			// More than one message has room for, and not in order.
			all := addrs(s, 1, 2*batch+7)
			slices.Reverse(all)
			if got := sync(t, s, all); got != (Change{Added: 2*batch + 6}) {
				t.Errorf("Sync did %+v", got)
			}
			holds(t, s, addrs(s, 1, 2*batch+7))
			if got := sync(t, s, all); got != (Change{}) {
				t.Errorf("a second Sync did %+v", got)
			}
			if got := sync(t, s, addrs(s, 5, 2*batch+9)); got != (Change{Added: 2, Removed: 4}) {
				t.Errorf("Sync did %+v", got)
			}
			holds(t, s, addrs(s, 5, 2*batch+9))
			if got := sync(t, s, nil); got.Added != 0 || got.Removed != 2*batch+4 {
				t.Errorf("Sync to nothing did %+v", got)
			}
			for range 2 {
				if err := s.Destroy(t.Context()); err != nil {
					t.Fatal(err)
				}
				if there, err := s.Exists(); there || err != nil {
					t.Fatalf("after Destroy: %v, %v", there, err)
				}
			}
		})
	}
}

func TestOtherFamilyAndRepetitionsAreLeftOut(t *testing.T) {
	netnstest.Enter(t)
	mixed := []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("::ffff:10.0.0.2"),
		netip.MustParseAddr("10.0.0.1"), {}, netip.MustParseAddr("fe80::1%eth0"),
	}
	sync(t, Of(false), mixed)
	sync(t, Of(true), mixed)
	holds(t, Of(false), []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")})
	holds(t, Of(true), []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fe80::1")})
}

func TestAddNeverShrinksAndNeverMakes(t *testing.T) {
	for name, s := range families {
		t.Run(name, func(t *testing.T) {
			netnstest.Enter(t)
			if got, err := s.Add(t.Context(), addrs(s, 0, 9)); err != nil || got != (Change{}) {
				t.Fatalf("Add without a set: %+v, %v", got, err)
			}
			if there, err := s.Exists(); there || err != nil {
				t.Fatalf("Add made the set: %v, %v", there, err)
			}
			sync(t, s, addrs(s, 0, 9))
			if got, err := s.Add(t.Context(), addrs(s, 7, 12)); err != nil || got != (Change{Added: 3}) {
				t.Fatalf("Add: %+v, %v", got, err)
			}
			holds(t, s, addrs(s, 0, 12))
		})
	}
}

// TestRandomOrder compares with a map, whatever came before.
func TestRandomOrder(t *testing.T) {
	netnstest.Enter(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := Of(random.IntN(2) == 0)
	model, made := map[netip.Addr]bool{}, false
	for step := range 150 {
		var some []netip.Addr
		for range random.IntN(3 * batch / 2) {
			some = append(some, addr(s, random.IntN(2*batch)))
		}
		switch random.IntN(5) {
		case 0, 1, 2:
			sync(t, s, some)
			clear(model)
			made = true
		case 3:
			if _, err := s.Add(t.Context(), some); err != nil {
				t.Fatal(err)
			}
			if !made {
				continue
			}
		case 4:
			if err := s.Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
			clear(model)
			made, some = false, nil
		}
		for _, a := range some {
			model[a] = true
		}
		got, there, err := s.Addrs()
		if err != nil || there != made || !slices.Equal(got, difference(model, nil)) {
			t.Fatalf("step %d: %d addresses (%v, %v), want %d (%v)", step, len(got), there, err, len(model), made)
		}
	}
}

func TestAnotherKindIsReported(t *testing.T) {
	second := uint32(1)
	for name, make := range map[string]func() error{
		"type": func() error {
			return netlink.IpsetCreate(Name4, "hash:net", netlink.IpsetCreateOptions{Revision: 1})
		},
		"family": func() error {
			return netlink.IpsetCreate(Name4, typeName, netlink.IpsetCreateOptions{Family: unix.AF_INET6})
		},
		"size": func() error { return netlink.IpsetCreate(Name4, typeName, netlink.IpsetCreateOptions{}) },
		"timeout": func() error {
			return netlink.IpsetCreate(Name4, typeName, netlink.IpsetCreateOptions{MaxElements: maxElem, Timeout: &second})
		},
		"netmask": func() error {
			data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|unix.NLA_F_NESTED, nil)
			data.AddChild(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_MAXELEM | unix.NLA_F_NET_BYTEORDER, Value: maxElem})
			data.AddRtAttr(nl.IPSET_ATTR_NETMASK, nl.Uint8Attr(24))
			_, err := Of(false).do(nl.IPSET_CMD_CREATE, 0,
				nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated(typeName)),
				nl.NewRtAttr(nl.IPSET_ATTR_REVISION, nl.Uint8Attr(1)),
				nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(unix.NFPROTO_IPV4)), data)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			netnstest.Enter(t)
			if err := make(); err != nil {
				t.Fatal(err)
			}
			s := Of(false)
			if _, err := s.Sync(t.Context(), addrs(s, 1, 3)); !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), Name4) {
				t.Errorf("Sync: %v", err)
			}
			if got, err := s.Add(t.Context(), addrs(s, 1, 3)); err != nil || got != (Change{}) {
				t.Errorf("Add: %+v, %v", got, err)
			}
			if err := s.Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
			sync(t, s, addrs(s, 1, 3))
			holds(t, s, addrs(s, 1, 3))
		})
	}
}

// TestForeignSetsStay: only the two names are ours.
func TestForeignSetsStay(t *testing.T) {
	netnstest.Enter(t)
	if err := netlink.IpsetCreate("DCOS-OVERLAY-PEERS40", typeName, netlink.IpsetCreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s := Of(false)
	sync(t, s, addrs(s, 1, 3))
	if err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := netlink.IpsetListAll()
	if err != nil || len(all) != 1 || all[0].SetName != "DCOS-OVERLAY-PEERS40" {
		t.Errorf("the sets are %+v, %v", all, err)
	}
}

func TestDestroyOfAUsedSetSaysSo(t *testing.T) {
	netnstest.Enter(t)
	s := Of(false)
	sync(t, s, nil)
	// A set of sets holds on to its members, as a rule does.
	if err := netlink.IpsetCreate("holder", "list:set", netlink.IpsetCreateOptions{}); err != nil {
		t.Fatal(err)
	}
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|unix.NLA_F_NESTED, nil)
	data.AddRtAttr(nl.IPSET_ATTR_NAME, nl.ZeroTerminated(s.Name))
	if _, err := (Set{Name: "holder"}).do(nl.IPSET_CMD_ADD, 0, data); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Destroy(ctx); err == nil || !strings.Contains(err.Error(), "remove ipset "+Name4) {
		t.Errorf("Destroy: %v", err)
	}
	if there, err := s.Exists(); !there || err != nil {
		t.Errorf("after it: %v, %v", there, err)
	}
}

func TestExplain(t *testing.T) {
	for errno, want := range map[syscall.Errno]error{
		syscall.EPROTONOSUPPORT:    ErrUnsupported, // no nfnetlink
		syscall.EINVAL:             ErrUnsupported, // nfnetlink without ip_set
		nl.IPSET_ERR_FIND_TYPE:     ErrUnsupported, // ip_set without hash:ip
		syscall.ENOENT:             syscall.ENOENT,
		syscall.EPERM:              syscall.EPERM,
		nl.IPSET_ERR_TYPE_SPECIFIC: nl.IPSetError(nl.IPSET_ERR_TYPE_SPECIFIC),
	} {
		if got := explain(errno); !errors.Is(got, want) {
			t.Errorf("explain(%d) = %v, want %v", errno, got, want)
		}
	}
}

func TestNamesFitTheKernel(t *testing.T) {
	for _, s := range families {
		if len(s.Name) >= nl.IPSET_MAXNAMELEN {
			t.Errorf("%s has %d characters", s.Name, len(s.Name))
		}
	}
}

func TestEndedContext(t *testing.T) {
	netnstest.Enter(t)
	s := Of(false)
	sync(t, s, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Sync(ctx, addrs(s, 1, 3)); !errors.Is(err, context.Canceled) {
		t.Errorf("Sync: %v", err)
	}
}

// FuzzRead feeds the decoder what no kernel sends.
func FuzzRead(f *testing.F) {
	for _, s := range families {
		f.Add(append(appendHeader(nil, nl.IPSET_ATTR_ADT|unix.NLA_F_NESTED, 3*len(entries([]netip.Addr{addr(s, 1)}))), entries(addrs(s, 1, 4))...))
	}
	f.Add([]byte{8, 0, nl.IPSET_ATTR_FAMILY, 0, 2, 0, 0, 0, 4, 0, nl.IPSET_ATTR_DATA, 0x80})
	f.Fuzz(func(t *testing.T, reply []byte) {
		c := content{addrs: map[netip.Addr]bool{}}
		c.read(reply)
		// What was read can be written and is read again.
		list := difference(c.addrs, nil)
		again := content{addrs: map[netip.Addr]bool{}}
		if again.readEntries(entries(list)); len(again.addrs) != len(list) {
			t.Errorf("%v becomes %v", list, again.addrs)
		}
	})
}

// BenchmarkSync fills an empty set, and then finds it right; the library's
// call for each address is beside it.
func BenchmarkSync(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000, 65_535} {
		for _, s := range []Set{Of(false), Of(true)} {
			all := addrs(s, 1, n+1)
			kind := fmt.Sprintf("%s/%d", s.Name[len(s.Name)-1:], n)
			b.Run("fill/IPv"+kind, func(b *testing.B) {
				benchmark(b, s, true, n, func() error { _, err := s.Sync(b.Context(), all); return err })
			})
			b.Run("look/IPv"+kind, func(b *testing.B) {
				benchmark(b, s, false, n, func() error { _, err := s.Sync(b.Context(), all); return err })
			})
		}
	}
	s := Of(false)
	const n = 10_000
	b.Run(fmt.Sprintf("library/IPv4/%d", n), func(b *testing.B) {
		benchmark(b, s, true, n, func() error {
			if err := s.create(); err != nil {
				return err
			}
			for i := range n {
				if err := netlink.IpsetAdd(s.Name, &netlink.IPSetEntry{IP: addr(s, i).AsSlice()}); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func benchmark(b *testing.B, s Set, anew bool, n int, f func() error) {
	netnstest.Enter(b)
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
		if anew {
			b.StopTimer()
			if err := s.Destroy(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "addresses/s")
}
