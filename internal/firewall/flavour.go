package firewall

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Warnings says in words what of the host's iptables may be trouble that Apply
// can't see: the kernel holds rules of the other flavour as well, nft besides
// legacy or the other way round. Packets run through both, and what our rules
// accept the others may drop. What can't be looked at is not warned of.
func (f *Firewall) Warnings(ctx context.Context) []string {
	var out []string
	for _, fam := range families {
		used, err := f.flavour(ctx, fam)
		if err != nil {
			continue
		}
		other := nft
		if used == nft {
			other = legacy
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

// The flavours of iptables, as they are in the programs' names.
const (
	nft    = "nft"
	legacy = "legacy"
)

// flavour is that of the family's programs. The usual name is a link to one
// that tells it; where it does not, the program is asked.
func (f *Firewall) flavour(ctx context.Context, fam family) (string, error) {
	path, err := f.find(fam.program)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil && strings.Contains(filepath.Base(real), "-"+nft+"-") {
		return nft, nil
	}
	version, err := f.exec(ctx, fam.program, "", "--version")
	// Before 1.8 there was but one flavour, and no word on it.
	if strings.Contains(version, "nf_tables") {
		return nft, err
	}
	return legacy, err
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
