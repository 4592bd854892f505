package firewall

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// forwarding wants one chain, so that the tables of TestPlan stay readable.
var forwarding = Ruleset{{Name: "filter", Chains: []Chain{{
	Name: "DCOS-OVERLAY-FORWARD", Parent: "FORWARD", Rules: []string{"-i m-dcos -j ACCEPT"},
}}}}

func TestPlan(t *testing.T) {
	const right = ":DCOS-OVERLAY-FORWARD - [0:0]\n-A DCOS-OVERLAY-FORWARD -i m-dcos -j ACCEPT\n"
	for _, tt := range []struct {
		name    string
		have    string // of table filter
		repairs []string
		script  string
	}{{
		name:    "nothing there",
		repairs: []string{"chain DCOS-OVERLAY-FORWARD was missing", "the jump from FORWARD to DCOS-OVERLAY-FORWARD was missing"},
		script:  right + "-I FORWARD 1 -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name: "right",
		have: right + "-A FORWARD -j DCOS-OVERLAY-FORWARD\n-A FORWARD -j DROP\n",
	}, {
		name: "behind rules that cannot drop",
		have: right + "-A FORWARD -j LOG --log-prefix \"x \"\n-A FORWARD -i eth9 -j ACCEPT\n-A FORWARD -i eth8\n-A FORWARD -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name:    "other rules",
		have:    ":DCOS-OVERLAY-FORWARD - [0:0]\n-A DCOS-OVERLAY-FORWARD -j DROP\n-A FORWARD -j DCOS-OVERLAY-FORWARD\n",
		repairs: []string{"chain DCOS-OVERLAY-FORWARD had other rules"},
		script:  right,
	}, {
		name:    "behind a rule that can drop",
		have:    right + "-A FORWARD -s 6.6.6.6/32 -j DROP\n-A FORWARD -j DCOS-OVERLAY-FORWARD\n",
		repairs: []string{"the jump to DCOS-OVERLAY-FORWARD was not first in FORWARD"},
		script:  "-D FORWARD -j DCOS-OVERLAY-FORWARD\n-I FORWARD 1 -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name:    "Docker came later",
		have:    ":DOCKER-USER - [0:0]\n" + right + "-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER\n-A FORWARD -j DCOS-OVERLAY-FORWARD\n-A DOCKER-USER -j RETURN\n",
		repairs: []string{"the jump to DCOS-OVERLAY-FORWARD was in FORWARD and belongs in DOCKER-USER"},
		script:  "-D FORWARD -j DCOS-OVERLAY-FORWARD\n-I DOCKER-USER 1 -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name: "in DOCKER-USER",
		have: ":DOCKER-USER - [0:0]\n" + right + "-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j DCOS-OVERLAY-FORWARD\n-A DOCKER-USER -j RETURN\n",
	}, {
		name: "as Engine 28 has it",
		have: ":DOCKER-FORWARD - [0:0]\n:DOCKER-ISOLATION-STAGE-1 - [0:0]\n:DOCKER-ISOLATION-STAGE-2 - [0:0]\n:DOCKER-USER - [0:0]\n" + right +
			"-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1\n" +
			"-A DOCKER-ISOLATION-STAGE-1 -i d-dcos ! -o d-dcos -j DOCKER-ISOLATION-STAGE-2\n" +
			"-A DOCKER-ISOLATION-STAGE-2 -o d-dcos -j DROP\n-A DOCKER-USER -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name:    "Engine 28 came later",
		have:    ":DOCKER-FORWARD - [0:0]\n:DOCKER-USER - [0:0]\n" + right + "-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n-A FORWARD -j DCOS-OVERLAY-FORWARD\n",
		repairs: []string{"the jump to DCOS-OVERLAY-FORWARD was in FORWARD and belongs in DOCKER-USER"},
		script:  "-D FORWARD -j DCOS-OVERLAY-FORWARD\n-I DOCKER-USER 1 -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name:    "DOCKER-USER returns before",
		have:    ":DOCKER-USER - [0:0]\n" + right + "-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n-A DOCKER-USER -j DCOS-OVERLAY-FORWARD\n",
		repairs: []string{"the jump to DCOS-OVERLAY-FORWARD was not first in DOCKER-USER"},
		script:  "-D DOCKER-USER -j DCOS-OVERLAY-FORWARD\n-I DOCKER-USER 1 -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name:    "nothing leads to DOCKER-USER any more",
		have:    ":DOCKER-USER - [0:0]\n" + right + "-A DOCKER-USER -j DCOS-OVERLAY-FORWARD\n",
		repairs: []string{"the jump to DCOS-OVERLAY-FORWARD was in DOCKER-USER and belongs in FORWARD"},
		script:  "-D DOCKER-USER -j DCOS-OVERLAY-FORWARD\n-I FORWARD 1 -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name: "something drops before DOCKER-USER",
		have: ":DOCKER-USER - [0:0]\n" + right + "-A FORWARD -j DCOS-OVERLAY-FORWARD\n-A FORWARD -j cali-FORWARD\n-A FORWARD -j DOCKER-USER\n",
	}, {
		name:    "two jumps",
		have:    right + "-A FORWARD -j DCOS-OVERLAY-FORWARD\n-A FORWARD -j DCOS-OVERLAY-FORWARD\n",
		repairs: []string{"there were 2 jumps to DCOS-OVERLAY-FORWARD"},
		script:  "-D FORWARD -j DCOS-OVERLAY-FORWARD\n-D FORWARD -j DCOS-OVERLAY-FORWARD\n-I FORWARD 1 -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name:    "a jump with conditions",
		have:    right + "-A FORWARD -i eth0 -m comment --comment \"a \\\" b\" -j DCOS-OVERLAY-FORWARD\n",
		repairs: []string{"the jump from FORWARD to DCOS-OVERLAY-FORWARD had conditions"},
		script:  "-D FORWARD -i eth0 -m comment --comment \"a \\\" b\" -j DCOS-OVERLAY-FORWARD\n-I FORWARD 1 -j DCOS-OVERLAY-FORWARD\n",
	}, {
		name: "a comment that looks like a jump",
		have: right + "-A FORWARD -j DCOS-OVERLAY-FORWARD\n-A INPUT -m comment --comment \"see -j DCOS-OVERLAY-FORWARD there\" -j DROP\n",
	}, {
		name:    "chains of another version",
		have:    ":DCOS-OVERLAY-OLD - [0:0]\n" + right + "-A FORWARD -j DCOS-OVERLAY-FORWARD\n-A INPUT -g DCOS-OVERLAY-OLD\n-A DCOS-OVERLAY-OLD -j DROP\n",
		repairs: []string{"chain DCOS-OVERLAY-OLD was left over", "INPUT led to DCOS-OVERLAY-OLD"},
		script:  ":DCOS-OVERLAY-OLD - [0:0]\n-D INPUT -g DCOS-OVERLAY-OLD\n-X DCOS-OVERLAY-OLD\n",
	}} {
		t.Run(tt.name, func(t *testing.T) {
			have, err := parseSave("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [1:60]\n" + tt.have + "COMMIT\n")
			if err != nil {
				t.Fatal(err)
			}
			var got change
			for _, ch := range plan("iptables", forwarding, have) {
				got = ch
			}
			var repairs []string
			for _, r := range tt.repairs {
				repairs = append(repairs, "iptables filter: "+r)
			}
			if !reflect.DeepEqual(got.repairs, repairs) {
				t.Errorf("repairs are %q\nand should be %q", got.repairs, repairs)
			}
			if tt.script != "" {
				tt.script = "*filter\n" + tt.script + "COMMIT\n"
			}
			if got.script != tt.script {
				t.Errorf("the script is\n%s\nand should be\n%s", got.script, tt.script)
			}
		})
	}
}

func TestPlanOfTheFilter(t *testing.T) {
	const (
		rule  = "-p udp -m udp --dport 64000 -m set ! --match-set DCOS-OVERLAY-PEERS4 src -j DROP"
		right = ":DCOS-OVERLAY-INPUT - [0:0]\n-A DCOS-OVERLAY-INPUT " + rule + "\n"
		first = "-A INPUT -j DCOS-OVERLAY-INPUT\n"
	)
	for _, tt := range []struct {
		name   string
		filter Filter
		have   string // of table filter
		script string
	}{
		{"missing", FilterIPv4, "", right + "-I INPUT 1 -j DCOS-OVERLAY-INPUT\n"},
		{"right", FilterIPv4, right + first + "-A INPUT -j ACCEPT\n", ""},
		{"behind rules that can only drop", FilterIPv4,
			right + "-A INPUT -j LOG\n-A INPUT -s 6.6.6.6/32 -j DROP\n-A INPUT -i eth9 -j REJECT --reject-with icmp-port-unreachable\n" + first, ""},
		{"behind a rule that accepts", FilterIPv4, right + "-A INPUT -s 10.0.0.0/8 -j ACCEPT\n" + first,
			"-D INPUT -j DCOS-OVERLAY-INPUT\n-I INPUT 1 -j DCOS-OVERLAY-INPUT\n"},
		{"behind a chain", FilterIPv4, right + "-A INPUT -j ufw-before-input\n" + first,
			"-D INPUT -j DCOS-OVERLAY-INPUT\n-I INPUT 1 -j DCOS-OVERLAY-INPUT\n"},
		{"of other peers", FilterIPv4, ":DCOS-OVERLAY-INPUT - [0:0]\n-A DCOS-OVERLAY-INPUT -j DROP\n" + first, right},
		{"as it is, absent", FilterAsIs, "", ""},
		{"as it is, there", FilterAsIs, right + first, ""},
		{"as it is, without its jump", FilterAsIs, right, ""},
		{"off", FilterOff, right + first, ":DCOS-OVERLAY-INPUT - [0:0]\n-D INPUT -j DCOS-OVERLAY-INPUT\n-X DCOS-OVERLAY-INPUT\n"},
		{"off, absent", FilterOff, "", ""},
		{"of the other family", FilterIPv6, right + first, ":DCOS-OVERLAY-INPUT - [0:0]\n-D INPUT -j DCOS-OVERLAY-INPUT\n-X DCOS-OVERLAY-INPUT\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have, err := parseSave("*filter\n:INPUT ACCEPT [0:0]\n" + tt.have + "COMMIT\n")
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, ch := range plan("iptables", Want(Config{Filter: tt.filter}, false), have) {
				got += ch.script
			}
			if tt.script != "" {
				tt.script = "*filter\n" + tt.script + "COMMIT\n"
			}
			if got != tt.script {
				t.Errorf("the script is\n%s\nand should be\n%s", got, tt.script)
			}
		})
	}
}

func TestRandomFullyIsNotADifference(t *testing.T) {
	want := Ruleset{{Name: "nat", Chains: []Chain{{Name: chainMasq, Parent: "POSTROUTING",
		Rules: []string{"-s 9.0.0.0/8 -j MASQUERADE" + randomFully}}}}}
	have, err := parseSave("*nat\n:POSTROUTING ACCEPT [0:0]\n:DCOS-OVERLAY-MASQ - [0:0]\n" +
		"-A POSTROUTING -j DCOS-OVERLAY-MASQ\n-A DCOS-OVERLAY-MASQ -s 9.0.0.0/8 -j MASQUERADE\nCOMMIT\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := plan("iptables", want, have); len(got) != 0 {
		t.Errorf("an iptables without --random-fully is repaired for ever: %q", got)
	}
}

func TestParseSaveRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"-A FORWARD -j DROP\n":                             "in no table",
		"*filter\nwhat is this\n":                          "no known form",
		"*filter\n:INPUT ACCEPT\n":                         "before COMMIT",
		"# Table `nat' is incompatible, use 'nft' tool.\n": "table nat has rules that iptables cannot show",
	} {
		if _, err := parseSave(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseSave(%q) = %v, want an error with %q", text, err, want)
		}
	}
	if _, err := parseSave("# Table `raw' is incompatible, use 'nft' tool.\n"); err != nil {
		t.Errorf("a table that is not ours matters: %v", err)
	}
}

// fakePrograms writes shell scripts called name-verb, and returns a Firewall
// that finds them.
func fakePrograms(t *testing.T, scripts map[string]string) *Firewall {
	dir := t.TempDir()
	for name, body := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &Firewall{Path: dir}
}

// emptySave prints a host on which there is nothing yet.
const emptySave = "printf '*nat\\n:POSTROUTING ACCEPT [0:0]\\nCOMMIT\\n*filter\\n:FORWARD ACCEPT [0:0]\\nCOMMIT\\n'"

func TestWithoutRandomFullyWhereTheOptionIsUnknown(t *testing.T) {
	out := filepath.Join(t.TempDir(), "nat")
	f := fakePrograms(t, map[string]string{
		"iptables-save": emptySave,
		"iptables-restore": `in=$(cat)
case "$in" in
*random-fully*) echo 'iptables-restore v1.4.21: unknown option "--random-fully"' >&2; exit 2;;
*MASQUERADE*) echo "$in" >` + out + `;;
esac`,
		"ip6tables-save": "exit 0",
	})
	n := testNetwork()
	n.Overlays = n.Overlays[:1]
	if _, err := f.Apply(context.Background(), ConfigOf(n)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got), "-s 9.0.0.0/8 -j MASQUERADE\n") {
		t.Errorf("written was\n%s", got)
	}
}

func TestOneFailingTableKeepsNoOtherBack(t *testing.T) {
	out := filepath.Join(t.TempDir(), "filter")
	restore := `in=$(cat)
case "$in" in
*"*nat"*) echo "ip6tables-restore: unable to initialize table 'nat'" >&2; echo "Error occurred at line: 1" >&2; exit 2;;
*"*filter"*) echo "$in" >>` + out + `;;
esac`
	f := fakePrograms(t, map[string]string{
		"iptables-save": emptySave, "iptables-restore": "cat >/dev/null",
		"ip6tables-save": emptySave, "ip6tables-restore": restore,
	})
	_, err := f.Apply(context.Background(), ConfigOf(testNetwork()))
	const want = "writing our rules to table nat: ip6tables-restore: exit status 2: " +
		"ip6tables-restore: unable to initialize table 'nat'; Error occurred at line: 1 " +
		"(the kernel has no IPv6 NAT: load the module ip6table_nat, or configure no IPv6 overlay)"
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v\nand should be\n%s", err, want)
	}
	if _, err := os.Stat(out); err != nil {
		t.Errorf("table filter was not written: %v", err)
	}
}

// TestOneProgramWritesAllTables: each program costs a host's first container
// milliseconds.
func TestOneProgramWritesAllTables(t *testing.T) {
	runs := filepath.Join(t.TempDir(), "runs")
	f := fakePrograms(t, map[string]string{
		"iptables-save":    "echo save >>" + runs + "; " + emptySave,
		"iptables-restore": "echo restore >>" + runs + "; cat >>" + runs,
		"ip6tables-save":   "exit 0",
	})
	n := testNetwork()
	n.Overlays = n.Overlays[:1]
	if _, err := f.Apply(t.Context(), ConfigOf(n)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(runs)
	if err != nil || strings.Count(string(got), "save\n") != 1 || strings.Count(string(got), "restore\n") != 1 || strings.Count(string(got), "COMMIT\n") != 2 {
		t.Errorf("the programs run were\n%s%v", got, err)
	}
}

// TestWrittenBeforeTheTableThatFails: what was written together with a table
// that fails is not written again, and told as repaired.
func TestWrittenBeforeTheTableThatFails(t *testing.T) {
	dir := t.TempDir()
	there, runs := filepath.Join(dir, "nat"), filepath.Join(dir, "runs")
	f := fakePrograms(t, map[string]string{
		"iptables-save": emptySave + "; cat " + there + " 2>/dev/null; true",
		"iptables-restore": `in=$(cat)
case "$in" in *"*nat"*) echo "$in" | sed 's/^[*]nat/&\n:POSTROUTING ACCEPT [0:0]/; s/^-I POSTROUTING 1/-A POSTROUTING/; /^COMMIT/q' >` + there + `; echo nat >>` + runs + `;; esac
case "$in" in *"*filter"*) echo "no filter today" >&2; exit 1;; esac`,
		"ip6tables-save": "exit 0",
	})
	n := testNetwork()
	n.Overlays = n.Overlays[:1]
	repairs, err := f.Apply(t.Context(), ConfigOf(n))
	if err == nil || err.Error() != "writing our rules to table filter: iptables-restore: exit status 1: no filter today" {
		t.Errorf("the error is %v", err)
	}
	if len(repairs) != 2 || repairs[0] != "iptables nat: chain DCOS-OVERLAY-MASQ was missing" {
		t.Errorf("told is %q", repairs)
	}
	if got, err := os.ReadFile(runs); string(got) != "nat\n" {
		t.Errorf("table nat was written by %q, %v", got, err)
	}
}

func TestHostWithoutIPv6(t *testing.T) {
	f := fakePrograms(t, map[string]string{
		"iptables-save": emptySave, "iptables-restore": "cat >/dev/null",
		"ip6tables-save": "echo \"ip6tables-save: no IPv6 here\" >&2; exit 1",
	})
	n := testNetwork()
	const want = "ip6tables-save: exit status 1: ip6tables-save: no IPv6 here"
	if _, err := f.Apply(context.Background(), ConfigOf(n)); err == nil || err.Error() != want {
		t.Errorf("with IPv6 overlays the error is\n%v\nand should be\n%s", err, want)
	}
	n.Overlays = n.Overlays[:1]
	if _, err := f.Apply(context.Background(), ConfigOf(n)); err != nil {
		t.Errorf("without IPv6 overlays: %v", err)
	}
	if err := f.Remove(context.Background()); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

func TestDeadline(t *testing.T) {
	f := fakePrograms(t, map[string]string{"iptables-save": "exec sleep 3600", "ip6tables-save": "exec sleep 3600"})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Check(ctx, ConfigOf(testNetwork())); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want one that is context.Canceled", err)
	}
}

func TestMissingPrograms(t *testing.T) {
	_, err := (&Firewall{Path: "/nowhere"}).find("iptables-of-nobody")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "install the package iptables") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
	path, err := (&Firewall{}).find("iptables-save")
	if err != nil || !filepath.IsAbs(path) {
		t.Errorf("with an empty PATH: %q, %v", path, err)
	}
}
