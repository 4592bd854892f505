package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/peerset"
)

// filter brings the set of addresses that VXLAN is accepted from to what is
// known, and says what shall become of the rule that uses it. Only where all
// peers are known, and a companion runs that will hear of new ones, may the
// rule come to be or an address go; else what is there stays, and addresses
// are added. A host on which there can be no filter has to do without.
func (h *Host) filter(ctx context.Context, self netip.Addr, known Knowledge, done *Outcome) firewall.Filter {
	if !h.Conf.VXLANFilter {
		return firewall.FilterOff
	}
	var addrs []netip.Addr
	for _, a := range known.Agents {
		if a.IP != self {
			addrs = append(addrs, a.IP)
		}
	}
	set := peerset.Of(self.Is6())
	all := known.Complete && h.Dir.CompanionRuns()
	update := set.Add
	if all {
		update = set.Sync
	}
	change, err := update(ctx, addrs)
	if change != (peerset.Change{}) {
		done.Repairs = append(done.Repairs, Repair{KindPeers, fmt.Sprintf("ipset %s: %s", set.Name, change)})
	}
	switch {
	case errors.Is(err, peerset.ErrKind):
		// Without its rule the firewall removes it, and the next time it is
		// made anew.
		done.warn("VXLAN is accepted from all until the set of peers is made anew", err)
		return firewall.FilterOff
	case err != nil:
		done.warn("the filter of VXLAN packets from strangers stays as it is", err)
		return firewall.FilterAsIs
	case !all:
		return firewall.FilterAsIs
	}
	done.Filtered = set.Count(addrs)
	if self.Is6() {
		return firewall.FilterIPv6
	}
	return firewall.FilterIPv4
}

// rules begins to apply done.Rules, and answers a function that waits for it
// and notes in done what became of it. The programs of iptables take as long as
// all the rest of a host's set-up, which goes on beside them.
func (h *Host) rules(ctx context.Context, k *kernel.Kernel, done *Outcome) (wait func() error) {
	apart := Outcome{Rules: done.Rules}
	applied := begin(func() error {
		return k.Inside(func() error { return applyRules(ctx, &apart) })
	})
	return func() error {
		err := applied()
		if done.Rules.Filter != apart.Rules.Filter {
			done.Rules.Filter, done.Filtered = apart.Rules.Filter, 0
		}
		done.Repairs = append(done.Repairs, apart.Repairs...)
		done.Warnings = append(done.Warnings, apart.Warnings...)
		return err
	}
}

// applyRules applies done.Rules. Where they fail for the filter's sake, such as
// on a kernel without xt_set, all others are applied without it, and no filter
// that is there is taken away.
func applyRules(ctx context.Context, done *Outcome) error {
	f := firewall.New()
	repairs, err := f.Apply(ctx, done.Rules)
	if filter := done.Rules.Filter; err != nil && (filter == firewall.FilterIPv4 || filter == firewall.FilterIPv6) {
		failure := err
		done.Rules.Filter = firewall.FilterAsIs
		var more []string
		more, err = f.Apply(ctx, done.Rules)
		repairs = append(repairs, more...)
		if err == nil {
			done.warn(`VXLAN packets of strangers are not dropped: load the kernel's modules ip_set and xt_set, or set "vxlan_filter" to false`, failure)
		}
	}
	done.Warnings = append(done.Warnings, f.Warnings(ctx)...)
	return done.Note(KindRules)(repairs, err)
}

func (o *Outcome) warn(what string, err error) {
	o.Warnings = append(o.Warnings, what+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
}
