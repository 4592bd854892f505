package firewall

import (
	"errors"
	"strings"
	"testing"
)

// filterSave is what iptables-save prints of a host with these rules in INPUT.
func filterSave(policy string, rules ...string) string {
	text := "*filter\n:INPUT " + policy + " [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:other - [0:0]\n"
	for _, r := range rules {
		if !strings.HasPrefix(r, "-A ") {
			r = "-A INPUT " + r
		}
		text += r + "\n"
	}
	return text + "COMMIT\n"
}

func TestReportBlocked(t *testing.T) {
	const policy = "table filter: the policy of INPUT is DROP, and no rule accepts them"
	const state = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
	for _, tt := range []struct{ name, save, want string }{
		{"no rules", filterSave("ACCEPT"), ""},
		{"policy", filterSave("DROP"), policy},
		{"policy, and rules of others", filterSave("DROP", state, "-i lo -j ACCEPT", "-p tcp -m tcp --dport 22 -j ACCEPT", "-p udp -m udp --dport 53 -j ACCEPT"), policy},
		{"accepted by port", filterSave("DROP", state, "-p udp -m udp --dport 64000 -j ACCEPT"), ""},
		{"accepted by a range", filterSave("DROP", "-p udp -m multiport --dports 53,60000:65000 -j ACCEPT"), ""},
		{"accepted whole", filterSave("DROP", "-p udp -j ACCEPT"), ""},
		{"accepted from some", filterSave("DROP", "-s 10.0.0.0/8 -j ACCEPT"), ""},
		{"accepted by a device", filterSave("DROP", "-i eth1 -j ACCEPT"), ""},
		{"last rule", filterSave("ACCEPT", state, "-p tcp -m tcp --dport 22 -j ACCEPT", "-j REJECT --reject-with icmp-host-prohibited"),
			"table filter: -A INPUT -j REJECT --reject-with icmp-host-prohibited"},
		{"accepted too late", filterSave("ACCEPT", "-j DROP", "-p udp -m udp --dport 64000 -j ACCEPT"), "table filter: -A INPUT -j DROP"},
		{"by port", filterSave("ACCEPT", "-p udp -m udp --dport 64000 -m comment --comment \"no tunnels\" -j DROP"),
			"table filter: -A INPUT -p udp -m udp --dport 64000 -m comment --comment \"no tunnels\" -j DROP"},
		{"all but one port", filterSave("ACCEPT", "-p udp -m udp ! --dport 64000 -j DROP"), ""},
		{"some strangers dropped", filterSave("ACCEPT", "-s 192.0.2.0/24 -j DROP"), ""},
		{"in another chain", filterSave("ACCEPT", "-j other", "-A other -p udp -m udp --dport 1:65535 -j DROP"),
			"table filter: -A other -p udp -m udp --dport 1:65535 -j DROP"},
		{"back from another chain", filterSave("DROP", "-j other", "-j ACCEPT", "-A other -p tcp -j DROP", "-A other -j RETURN", "-A other -j DROP"), ""},
		{"chains in a circle", filterSave("DROP", "-j other", "-A other -j other"), policy},
		{"ours", filterSave("ACCEPT", "-j DCOS-OVERLAY-INPUT", "-A DCOS-OVERLAY-INPUT -p udp -m udp --dport 64000 -m set ! --match-set DCOS-OVERLAY-PEERS4 src -j DROP"), ""},
		{"raw", "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -m udp --dport 64000 -j DROP\nCOMMIT\n",
			"table raw: -A PREROUTING -p udp -m udp --dport 64000 -j DROP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have, err := parseSave(strings.ReplaceAll(tt.save, ":other", ":DCOS-OVERLAY-INPUT - [0:0]\n:other"))
			if err != nil {
				t.Fatal(err)
			}
			r := report(families[0], have)
			where := map[string]string{"filter": "INPUT", "raw": "PREROUTING"}[r.Table]
			if (tt.want != "") != (where != "") || r.Chain != where || !strings.HasPrefix(tt.want, "table "+r.Table) && tt.want != "" {
				t.Errorf("what drops is in table %q, chain %q", r.Table, r.Chain)
			}
			if got := r.Blocked; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReportForward(t *testing.T) {
	for _, tt := range []struct {
		name, forward, jump string
		first               bool
	}{
		{"none", "", "", false},
		{"first", "-A FORWARD -j DCOS-OVERLAY-FORWARD\n-A FORWARD -j DROP\n", "FORWARD", true},
		{"behind a rule that drops", "-A FORWARD -j DROP\n-A FORWARD -j DCOS-OVERLAY-FORWARD\n", "FORWARD", false},
		{"in Docker's chain", "-A FORWARD -j DOCKER-USER\n-A FORWARD -j DROP\n-A DOCKER-USER -j DCOS-OVERLAY-FORWARD\n", "DOCKER-USER", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have, err := parseSave("*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n:DCOS-OVERLAY-FORWARD - [0:0]\n" + tt.forward + "COMMIT\n")
			if err != nil {
				t.Fatal(err)
			}
			want := Report{Program: "ip6tables", Policy: "DROP", First: tt.first, Jump: tt.jump}
			if got := report(families[1], have); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestReportWithoutIptables(t *testing.T) {
	f := &Firewall{Path: t.TempDir()}
	_, err := f.Report(t.Context(), false)
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
