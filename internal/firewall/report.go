package firewall

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dcos/dcos-overlay/internal/network"
)

// Report is how the host treats packets of the overlays beside our own rules,
// in one address family.
type Report struct {
	// Program is iptables or ip6tables.
	Program string
	// Policy is what becomes of forwarded packets that no rule decides on:
	// ACCEPT or DROP; empty where the table does not exist, which accepts.
	Policy string
	// First tells whether forwarded packets come to our chain before others
	// can drop them.
	First bool
	// Jump is the chain that leads to ours; empty where none does.
	Jump string
	// Blocked says by which rule or policy the host drops VXLAN packets that
	// come in or go out; empty where they pass, or where that depends on more
	// than the rules say.
	Blocked string
	// Table and Chain are where they are dropped: a rule that accepts them has
	// to be the first there.
	Table, Chain string
}

// Report looks at the host's rules in one address family. Its error is
// ErrNotFound where there is no iptables.
func (f *Firewall) Report(ctx context.Context, v6 bool) (Report, error) {
	fam := families[0]
	if v6 {
		fam = families[1]
	}
	have, err := have(fam, f.save(ctx, fam))
	if err != nil {
		return Report{}, err
	}
	return report(fam, have), nil
}

func report(fam family, have saved) Report {
	filter := have["filter"]
	r := Report{Program: fam.program, Policy: filter.policies["FORWARD"]}
	if at := filter.jumpsTo(chainForward); len(at) > 0 {
		r.Jump = at[0].chain
		c := Chain{Name: chainForward, Parent: "FORWARD"}
		home := forwardHome(filter)
		r.First = len(at) == 1 && at[0] == (ruleAt{home, jump(chainForward)}) && placed(c, home, filter)
	}
	for _, table := range []string{"raw", "mangle", "filter"} {
		for _, chain := range []string{"PREROUTING", "INPUT", "OUTPUT"} {
			if r.Blocked != "" {
				continue
			}
			if r.Blocked = have[table].blocks(table, chain); r.Blocked != "" {
				r.Table, r.Chain = table, chain
			}
		}
	}
	return r
}

// verdict is what rules do with a packet.
type verdict int

const (
	undecided verdict = iota // the next rule's to say
	accepted
	dropped
	// unknown: it depends on where the packet is from.
	unknown
)

// maxDepth bounds how far chains that lead to chains are followed.
const maxDepth = 16

// blocks says which rule of a built-in chain, or of those that it leads to,
// drops every VXLAN packet; nothing where none does, or where that depends on
// the packet.
func (t savedTable) blocks(table, chain string) string {
	v, by := t.walk(chain, 0)
	switch {
	case v == dropped:
		return fmt.Sprintf("table %s: %s", table, by)
	case v == undecided && t.policies[chain] == "DROP":
		return fmt.Sprintf("table %s: the policy of %s is DROP, and no rule accepts them", table, chain)
	}
	return ""
}

func (t savedTable) walk(chain string, depth int) (verdict, string) {
	perhaps := false
	for _, rule := range t.chains[chain] {
		fits := match(rule)
		if fits == never {
			continue
		}
		to := target(rule)
		v, by := undecided, fmt.Sprintf("-A %s %s", chain, rule)
		switch {
		case to == "ACCEPT":
			v = accepted
		case to == "DROP" || to == "REJECT":
			v = dropped
		case to == "RETURN" && fits == always:
			if perhaps {
				return unknown, ""
			}
			return undecided, ""
		case strings.HasPrefix(to, prefix):
			// Ours, which drops no peer's packets.
		case t.chains[to] != nil && depth < maxDepth:
			v, by = t.walk(to, depth+1)
		}
		switch {
		case v == undecided:
		case v == unknown || fits == sometimes && v == accepted:
			// Peers may be those that it accepts.
			perhaps = true
		case fits == always && v == accepted, fits == always && !perhaps:
			return v, by
		case fits == always:
			return unknown, ""
		}
	}
	if perhaps {
		return unknown, ""
	}
	return undecided, ""
}

// fit tells whether a rule's conditions hold for a VXLAN packet from a peer.
type fit int

const (
	never fit = iota
	sometimes
	always
)

// match judges the conditions that say something of every VXLAN packet: the
// protocol, the port, the state of a connection. All others hold sometimes.
func match(rule string) fit {
	ws := words(rule)
	result := always
	for i := 0; i < len(ws); i++ {
		value := ""
		if i+1 < len(ws) {
			value = ws[i+1]
		}
		negated := i > 0 && ws[i-1] == "!"
		switch ws[i] {
		case "-j", "-g":
			return result
		case "!":
			continue
		case "-p":
			if (value != "udp" && value != "all") != negated {
				return never
			}
		case "-m":
			if value != "udp" && value != "multiport" && value != "comment" && value != "conntrack" && value != "state" {
				result = sometimes
			}
		case "--comment":
		case "--dport", "--dports":
			if hasPort(value) == negated {
				return never
			}
		case "--ctstate", "--state":
			if slices.Contains(strings.Split(value, ","), "NEW") == negated {
				return never
			}
		case "-i", "-o":
			if value == "lo" && !negated {
				return never
			}
			result = sometimes
		default:
			result = sometimes
			continue // it may have any number of values
		}
		i++
	}
	return result
}

// hasPort tells whether a list of ports and ranges has VXLAN's.
func hasPort(list string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(part string) bool {
		low, high, isRange := strings.Cut(part, ":")
		if !isRange {
			high = low
		}
		from, err := strconv.Atoi(low)
		if low == "" {
			from, err = 0, nil
		}
		to, err2 := strconv.Atoi(high)
		if high == "" {
			to, err2 = 65535, nil
		}
		return err == nil && err2 == nil && from <= network.VXLANPort && network.VXLANPort <= to
	})
}
