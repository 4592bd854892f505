package host

import (
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/netnstest"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/peerset"
)

// newHost is an agent in a network namespace of its own, which the test's
// goroutine is in until the test ends.
func newHost(t *testing.T, filter bool) *Host {
	t.Helper()
	netnstest.Enter(t)
	conf := agentconf.Config{VXLANFilter: filter, StateDir: t.TempDir(), RunDir: t.TempDir()}
	return New(conf, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

func (h *Host) withCompanion(t *testing.T) {
	t.Helper()
	unlock, err := h.Dir.LockCompanion()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
}

func ips(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func agents(texts ...string) []lease.Agent {
	var out []lease.Agent
	for _, ip := range ips(texts...) {
		out = append(out, lease.Agent{IP: ip})
	}
	return out
}

// set is what the kernel's set of self's family holds; "absent" without one.
func set(t *testing.T, self netip.Addr) string {
	t.Helper()
	addrs, there, err := peerset.Of(self.Is6()).Addrs()
	if err != nil {
		t.Fatal(err)
	}
	if !there {
		return "absent"
	}
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func TestFilter(t *testing.T) {
	self4, self6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	all4 := Knowledge{Agents: agents("10.0.0.1", "10.0.0.3", "10.0.0.2", "fd00::2"), Complete: true}
	type step struct {
		self    netip.Addr
		known   Knowledge
		want    firewall.Filter
		holds   string
		repairs int
	}
	for _, tt := range []struct {
		name              string
		filter, companion bool
		steps             []step
	}{
		{"switched off", false, true, []step{
			{self4, all4, firewall.FilterOff, "absent", 0},
			{self4, Knowledge{}, firewall.FilterOff, "absent", 0},
		}},
		{"nobody would hear of new peers", true, false, []step{
			{self4, all4, firewall.FilterAsIs, "absent", 0},
		}},
		{"all known, then some, then all", true, true, []step{
			{self4, Knowledge{Agents: all4.Agents}, firewall.FilterAsIs, "absent", 0},
			{self4, all4, firewall.FilterIPv4, "10.0.0.2 10.0.0.3", 1},
			{self4, all4, firewall.FilterIPv4, "10.0.0.2 10.0.0.3", 0},
			{self4, Knowledge{}, firewall.FilterAsIs, "10.0.0.2 10.0.0.3", 0},
			{self4, Knowledge{Agents: agents("10.0.0.4")}, firewall.FilterAsIs, "10.0.0.2 10.0.0.3 10.0.0.4", 1},
			{self4, Knowledge{Agents: agents("10.0.0.1", "10.0.0.4"), Complete: true}, firewall.FilterIPv4, "10.0.0.4", 1},
			{self4, Knowledge{Complete: true}, firewall.FilterIPv4, "", 1},
		}},
		{"IPv6 underlay", true, true, []step{
			{self6, Knowledge{Agents: agents("fd00::1", "fd00::2", "10.0.0.2"), Complete: true}, firewall.FilterIPv6, "fd00::2", 1},
			{self6, Knowledge{Agents: agents("fd00::3")}, firewall.FilterAsIs, "fd00::2 fd00::3", 1},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, tt.filter)
			if tt.companion {
				h.withCompanion(t)
			}
			for i, s := range tt.steps {
				var done Outcome
				got := h.filter(t.Context(), s.self, s.known, &done)
				if holds := set(t, s.self); got != s.want || holds != s.holds || len(done.Repairs) != s.repairs || len(done.Warnings) != 0 {
					t.Errorf("step %d: filter %d of %q, %v, %q; want %d of %q, %d repairs, no warning",
						i, got, holds, done.Repairs, done.Warnings, s.want, s.holds, s.repairs)
				}
			}
		})
	}
}

// TestFilterIsMadeAnew: a set of our name that is not ours is used by a rule.
func TestFilterIsMadeAnew(t *testing.T) {
	h := newHost(t, true)
	h.withCompanion(t)
	ctx := t.Context()
	self := netip.MustParseAddr("10.0.0.1")
	known := Knowledge{Agents: agents("10.0.0.2"), Complete: true}
	program := func() Outcome {
		t.Helper()
		var done Outcome
		done.Rules.Filter = h.filter(ctx, self, known, &done)
		k, err := kernel.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if err := h.rules(ctx, k, &done)(); err != nil {
			t.Fatal(err)
		}
		return done
	}
	if err := netlink.IpsetCreate(peerset.Name4, "hash:net", netlink.IpsetCreateOptions{Revision: 1}); err != nil {
		t.Fatal(err)
	}
	// Rules do not ask what kind of a set it is.
	if _, err := firewall.New().Apply(ctx, firewall.Config{Filter: firewall.FilterIPv4}); err != nil {
		t.Fatal(err)
	}
	if done := program(); len(done.Warnings) != 1 || !strings.Contains(done.Warnings[0], peerset.Name4) {
		t.Errorf("the first time: %+v", done)
	}
	if done := program(); len(done.Warnings) != 0 || done.Rules.Filter != firewall.FilterIPv4 {
		t.Errorf("the second time: %+v", done)
	}
	if got := set(t, self); got != "10.0.0.2" {
		t.Errorf("the set holds %s", got)
	}
	if problems, err := firewall.New().Check(ctx, firewall.Config{Filter: firewall.FilterIPv4}); err != nil || len(problems) != 0 {
		t.Errorf("problems: %q, %v", problems, err)
	}
}

// TestRulesWithoutTheirFilter: the iptables here can't match sets.
func TestRulesWithoutTheirFilter(t *testing.T) {
	dir := t.TempDir()
	written := filepath.Join(dir, "written")
	for name, body := range map[string]string{
		"iptables":       "echo 'iptables v1.8.9 (nf_tables)'",
		"ip6tables":      "echo 'ip6tables v1.8.9 (nf_tables)'",
		"iptables-save":  "[ ! -e " + written + " ] || cat " + written,
		"ip6tables-save": "exit 0",
		"iptables-restore": `in=$(cat)
case "$in" in
*match-set*) echo "iptables-restore: Couldn't load match set" >&2; exit 2;;
esac
echo "$in" | sed 's/^-I \(.*\) 1 /-A \1 /' >>` + written,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	newHost(t, true)
	n := network.Network{
		VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"),
		Overlays:   []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24}},
	}
	var done Outcome
	done.Rules = firewall.ConfigOf(n)
	done.Rules.Filter = firewall.FilterIPv4
	if err := applyRules(t.Context(), &done); err != nil {
		t.Fatal(err)
	}
	if len(done.Warnings) != 1 || !strings.Contains(done.Warnings[0], "vxlan_filter") || !strings.Contains(done.Warnings[0], "match set") ||
		strings.Contains(done.Warnings[0], "\n") || done.Rules.Filter != firewall.FilterAsIs {
		t.Errorf("filter %d, warnings %q", done.Rules.Filter, done.Warnings)
	}
	text, err := os.ReadFile(written)
	if err != nil || !strings.Contains(string(text), "MASQUERADE") || !strings.Contains(string(text), "-A FORWARD -j DCOS-OVERLAY-FORWARD") {
		t.Errorf("the other rules are not written: %v\n%s", err, text)
	}
	if !slices.ContainsFunc(done.Repairs, func(r Repair) bool { return strings.Contains(r.What, "DCOS-OVERLAY-FORWARD") }) {
		t.Errorf("the repairs are %v", done.Repairs)
	}
}
