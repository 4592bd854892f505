package ipam

import (
	"iter"
	"net/netip"

	"go4.org/netipx"

	"github.com/dcos/dcos-overlay/internal/network"
)

// candidates are the addresses of a subnet that a container can have, each
// once, from the one after last on, as host-local's allocator tries them; from
// the first on where last is none of them. That allocator itself would have
// each start of a plugin wait for its packages about nftables, a tenth of
// what starting takes.
func candidates(subnet netip.Prefix, last netip.Addr) iter.Seq[netip.Addr] {
	first, end := subnet.Masked().Addr().Next(), netipx.PrefixLastIP(subnet)
	if subnet.Addr().Is4() {
		end = end.Prev() // the last is for broadcasts
	}
	gateway := network.Gateway(subnet).Addr()
	from := first
	if last.Compare(first) >= 0 && last.Less(end) {
		from = last.Next()
	}
	return func(yield func(netip.Addr) bool) {
		for _, part := range [][2]netip.Addr{{from, end}, {first, from.Prev()}} {
			for a := part[0]; a.IsValid() && a.Compare(part[1]) <= 0; a = a.Next() {
				if a != gateway && !yield(a) {
					return
				}
			}
		}
	}
}
