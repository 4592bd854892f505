package firewall

import (
	"context"
	"os/exec"
	"strings"
	"testing"
)

func TestWarningsOfMixedFlavours(t *testing.T) {
	eachFlavour(t, func(t *testing.T, h host) {
		other := map[string]string{"nft": "legacy", "legacy": "nft"}
		flavour := t.Name()[strings.LastIndex(t.Name(), "/")+1:]
		theirs := func(program, args string) {
			t.Helper()
			name := program + "-" + other[flavour]
			if out, err := exec.Command(name, strings.Fields("-w 5 "+args)...).CombinedOutput(); err != nil {
				t.Fatalf("%s %s: %v: %s", name, args, err, out)
			}
		}
		warned := func(want ...string) {
			t.Helper()
			got := h.firewall.Warnings(context.Background())
			if len(got) != len(want) {
				t.Fatalf("the warnings are %q, want %d", got, len(want))
			}
			for i, w := range want {
				if !strings.HasPrefix(got[i], w) || strings.Contains(got[i], "\n") {
					t.Errorf("the warning is %q, want %q…", got[i], w)
				}
			}
		}
		warned()
		h.apply(ConfigOf(testNetwork()))
		warned()
		// Looking makes tables, which are no trouble.
		theirs("iptables", "-S")
		theirs("ip6tables", "-S")
		warned()
		theirs("iptables", "-t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE")
		theirs("iptables", "-A FORWARD -s 192.0.2.0/24 -j DROP")
		warned("iptables is of the " + flavour + " flavour, and the kernel has rules of the " + other[flavour] + " flavour too: ")
		theirs("ip6tables", "-A FORWARD -j DROP")
		warned("iptables is", "ip6tables is of the "+flavour+" flavour, and the kernel has rules")
		theirs("iptables", "-F")
		theirs("iptables", "-t nat -F")
		warned("ip6tables is")
	})
}

// TestWarningsWithOneFlavour: old versions say nothing of flavours, and
// something may be missing or broken.
func TestWarningsWithOneFlavour(t *testing.T) {
	newNamespace(t)
	f := fakePrograms(t, map[string]string{
		"iptables":          "echo 'iptables v1.4.21'",
		"iptables-nft-save": "printf '*filter\\n:INPUT ACCEPT [0:0]\\n-A INPUT -j DROP\\nCOMMIT\\n'",
		"ip6tables":         "echo 'ip6tables v1.4.21'",
		// A kernel without nf_tables.
		"ip6tables-nft-save": "echo 'Could not fetch rule set generation id' >&2; exit 4",
	})
	got := f.Warnings(context.Background())
	if len(got) != 1 || !strings.HasPrefix(got[0], "iptables is of the legacy flavour, and the kernel has rules of the nft flavour") {
		t.Errorf("the warnings are %q", got)
	}
}
