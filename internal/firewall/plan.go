package firewall

import (
	"fmt"
	"slices"
	"strings"
)

// change is what makes one table right.
type change struct {
	table string
	// script is the input of iptables-restore --noflush, which does all of it
	// or nothing.
	script string
	// repairs says in words what was wrong.
	repairs []string
}

// plan compares what is wanted with what is there. program, as in iptables,
// begins the words.
func plan(program string, want Ruleset, have saved) []change {
	var out []change
	for _, t := range want {
		ch := planTable(t, have[t.Name])
		if len(ch.repairs) == 0 {
			continue
		}
		for i, r := range ch.repairs {
			ch.repairs[i] = fmt.Sprintf("%s %s: %s", program, t.Name, r)
		}
		out = append(out, ch)
	}
	return out
}

func planTable(want Table, have savedTable) change {
	ch := change{table: want.Name}
	found := func(format string, args ...any) {
		ch.repairs = append(ch.repairs, fmt.Sprintf(format, args...))
	}
	var declare, rules, jumps, drop strings.Builder

	for _, c := range want.Chains {
		got, there := have.chains[c.Name]
		same := slices.EqualFunc(got, c.Rules, func(a, b string) bool {
			return withoutRandomFully(a) == withoutRandomFully(b)
		})
		if !there {
			found("chain %s was missing", c.Name)
		} else if !same {
			found("chain %s had other rules", c.Name)
		}
		if there && same {
			continue
		}
		// Declaring a chain creates it, or empties it where it exists.
		fmt.Fprintf(&declare, ":%s - [0:0]\n", c.Name)
		for _, rule := range c.Rules {
			fmt.Fprintf(&rules, "-A %s %s\n", c.Name, rule)
		}
	}

	leftovers := want.leftovers(have)
	for _, name := range leftovers {
		found("chain %s was left over", name)
		fmt.Fprintf(&declare, ":%s - [0:0]\n", name)
		fmt.Fprintf(&drop, "-X %s\n", name)
	}

	for _, c := range want.Chains {
		planJump(&jumps, found, c, have)
	}
	for _, name := range leftovers {
		planJump(&jumps, found, Chain{Name: name}, have)
	}

	if len(ch.repairs) > 0 {
		// Chains before the rules that lead to them, and jumps away before the
		// chain goes.
		ch.script = fmt.Sprintf("*%s\n%s%s%s%sCOMMIT\n", want.Name, &declare, &rules, &jumps, &drop)
	}
	return ch
}

// leftovers are the chains of ours that are there and not wanted.
func (t Table) leftovers(have savedTable) []string {
	var out []string
	for _, name := range have.names {
		wanted := slices.ContainsFunc(t.Chains, func(c Chain) bool { return c.Name == name })
		if strings.HasPrefix(name, prefix) && !wanted && !slices.Contains(t.Kept, name) {
			out = append(out, name)
		}
	}
	return out
}

// planJump writes what makes the foreign rules that lead to c right: exactly
// one in the right place, or none for a chain without a parent.
func planJump(script *strings.Builder, found func(string, ...any), c Chain, have savedTable) {
	home := c.Parent
	if home == "FORWARD" {
		home = forwardHome(have)
	}
	at := have.jumpsTo(c.Name)
	if home == "" {
		if len(at) == 0 {
			return
		}
	} else if len(at) == 1 && at[0] == (ruleAt{home, jump(c.Name)}) && placed(c, home, have) {
		return
	}

	for _, r := range at {
		fmt.Fprintf(script, "-D %s %s\n", r.chain, r.rule)
	}
	if home == "" {
		found("%s led to %s", at[0].chain, c.Name)
		return
	}
	fmt.Fprintf(script, "-I %s 1 %s\n", home, jump(c.Name))
	switch {
	case len(at) == 0:
		found("the jump from %s to %s was missing", home, c.Name)
	case len(at) > 1:
		found("there were %d jumps to %s", len(at), c.Name)
	case at[0].chain != home:
		found("the jump to %s was in %s and belongs in %s", c.Name, at[0].chain, home)
	case at[0].rule != jump(c.Name):
		found("the jump from %s to %s had conditions", home, c.Name)
	default:
		found("the jump to %s was not first in %s", c.Name, home)
	}
}

// dockerUser is the chain that Docker leaves to others. Docker puts the jump
// there back on top of FORWARD whenever it makes a network, its own at its
// start included, so that nothing else can stay before Docker's own rules.
const dockerUser = "DOCKER-USER"

// forwardHome is the chain where the jump to our forwarding rules belongs:
// DOCKER-USER where FORWARD leads there before anything else can drop. It does
// not where DOCKER-USER is left from an Engine that is gone, and not between
// the restart of an Engine 20.10 without docker0 and its next network: till
// then the isolation of its networks from each other comes first.
func forwardHome(have savedTable) string {
	// Our own jump does not count: it is what is to be moved.
	forward := slices.DeleteFunc(slices.Clone(have.chains["FORWARD"]), func(rule string) bool {
		return strings.HasPrefix(target(rule), prefix)
	})
	if _, there := have.chains[dockerUser]; there && leads(forward, jump(dockerUser), "ACCEPT") {
		return dockerUser
	}
	return "FORWARD"
}

// placed tells whether the one jump to c is far enough up in home: before what
// can undo its chain's work, which is to accept in filter's FORWARD, and to
// drop in INPUT and in mangle's FORWARD. In nat the place does not matter: a rule before ours that translates
// is somebody's wish.
func placed(c Chain, home string, have savedTable) bool {
	switch c.Name {
	case chainForward:
		return leads(have.chains[home], jump(c.Name), "ACCEPT")
	case chainInput, chainIsolate:
		return leads(have.chains[home], jump(c.Name), "DROP", "REJECT")
	}
	return true
}

// leads tells whether every packet in a chain comes to rule, but for those
// that one of the targets done is through with before. Rules that only log or
// count are no hindrance.
func leads(rules []string, rule string, done ...string) bool {
	for _, r := range rules {
		if r == rule {
			return true
		}
		switch to := target(r); to {
		case "", "LOG", "NFLOG":
		default:
			if !slices.Contains(done, to) {
				return false
			}
		}
	}
	return false
}

// ruleAt is a rule in a chain.
type ruleAt struct{ chain, rule string }

// jumpsTo are the rules outside our chains that lead to the chain called name.
func (t savedTable) jumpsTo(name string) []ruleAt {
	var out []ruleAt
	for _, chain := range t.names {
		if strings.HasPrefix(chain, prefix) {
			continue
		}
		for _, rule := range t.chains[chain] {
			if target(rule) == name {
				out = append(out, ruleAt{chain, rule})
			}
		}
	}
	return out
}
