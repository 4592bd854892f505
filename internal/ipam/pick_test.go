package ipam

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/network"
)

// TestCandidates: they are host-local's, in its order.
func TestCandidates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := netip.MustParseAddr(rapid.SampledFrom([]string{"9.0.1.128", "9.255.255.240", "fd01:b::8000", "fd01::ffff:ffff:ffff:fff0"}).Draw(t, "base"))
		subnet := netip.PrefixFrom(base, base.BitLen()-rapid.IntRange(2, 6).Draw(t, "host bits"))
		last := base
		for range rapid.IntRange(0, 70).Draw(t, "last") {
			last = last.Next()
		}
		s := &remembering{last: last}
		r := allocator.Range{
			Subnet:  types.IPNet{IP: subnet.Masked().Addr().AsSlice(), Mask: net.CIDRMask(subnet.Bits(), subnet.Addr().BitLen())},
			Gateway: network.Gateway(subnet).Addr().AsSlice(),
		}
		if err := r.Canonicalize(); err != nil {
			t.Fatal(err)
		}
		if _, err := allocator.NewIPAllocator(&allocator.RangeSet{r}, s, 0).Get("c", "eth0", nil); err == nil {
			t.Fatal("it got an address that nobody gave")
		}
		got := slices.Collect(candidates(subnet, last))
		if !slices.Equal(got, s.tried) {
			t.Fatalf("%s after %s: got %v, host-local has %v", subnet, last, got, s.tried)
		}
	})
}

// remembering is a store of host-local's that refuses all, and remembers what.
type remembering struct {
	last  netip.Addr
	tried []netip.Addr
}

func (s *remembering) Lock() error                           { return nil }
func (s *remembering) Unlock() error                         { return nil }
func (s *remembering) Close() error                          { return nil }
func (s *remembering) LastReservedIP(string) (net.IP, error) { return s.last.AsSlice(), nil }
func (s *remembering) ReleaseByID(string, string) error      { return nil }
func (s *remembering) GetByID(string, string) []net.IP       { return nil }
func (s *remembering) Reserve(_, _ string, ip net.IP, _ string) (bool, error) {
	addr, _ := netip.AddrFromSlice(ip)
	s.tried = append(s.tried, addr.Unmap())
	return false, nil
}
