package firewall

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Warnings says in words what of the host's iptables may be trouble that Apply
// can't see: the kernel holds rules of the other flavour as well, nft besides
// legacy or the other way round. Packets run through both, and what our rules
// accept the others may drop. What can't be looked at is not warned of.
func (f *Firewall) Warnings(ctx context.Context) []string {
	var out []string
	for _, fam := range families {
		version, err := f.exec(ctx, fam.program, "", "--version")
		if err != nil {
			continue
		}
		// Before 1.8 there was but one flavour, and no word on it.
		used, other := "legacy", "nft"
		if strings.Contains(version, "nf_tables") {
			used, other = other, used
			if !fam.legacyTables() {
				continue
			}
		}
		save := fam.program + "-" + other + "-save"
		text, err := f.exec(ctx, save, "")
		if err != nil {
			continue
		}
		if strings.Contains("\n"+text, "\n-A ") {
			// How many is left out: the same trouble is the same text.
			out = append(out, fmt.Sprintf("%s is of the %s flavour, and the kernel has rules of the %s flavour too: "+
				"packets run through both, so those may drop what ours accept; move them to one flavour (%s prints them)",
				fam.program, used, other, save))
		}
	}
	return out
}

// legacyTables tells whether the kernel has any table of the legacy flavour.
// Most hosts have none, and need no process started to know.
func (fam family) legacyTables() bool {
	name := "ip_tables_names"
	if fam.v6 {
		name = "ip6_tables_names"
	}
	// A kernel without the legacy flavour has no such file. The thread's own
	// is that of its network namespace.
	names, err := os.ReadFile("/proc/thread-self/net/" + name)
	return err == nil && len(names) > 0
}
