package firewall

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// saved is what iptables-save printed: for each table, its chains.
type saved map[string]savedTable

// savedTable has the rules of each chain, less the "-A <chain>" before each.
type savedTable struct {
	// names are the chains in the order of iptables-save.
	names  []string
	chains map[string][]string
	// policies are those of the built-in chains: ACCEPT or DROP.
	policies map[string]string
	// hidden says that iptables cannot show what is in the table.
	hidden bool
}

func hiddenError(table string) error {
	return fmt.Errorf("table %s has rules that iptables cannot show: take them out of it with nft", table)
}

// parseSave reads the output of iptables-save. It fails on a table nat or
// filter of which iptables says that it cannot show it, for then it is unknown
// what is there; mangle, which most hosts have no need of, is marked.
func parseSave(text string) (saved, error) {
	out := saved{}
	var table string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || line == "COMMIT":
		case strings.HasPrefix(line, "#"):
			if name, ok := incompatible(line); ok {
				if name != "mangle" {
					return nil, hiddenError(name)
				}
				out[name] = savedTable{hidden: true}
			}
		case line[0] == '*':
			table = line[1:]
			out[table] = savedTable{chains: map[string][]string{}, policies: map[string]string{}}
		case table == "":
			return nil, fmt.Errorf("line %q is in no table", line)
		case line[0] == ':':
			name, rest, _ := strings.Cut(line[1:], " ")
			policy, _, _ := strings.Cut(rest, " ")
			t := out[table]
			t.names = append(t.names, name)
			out[table] = t
			t.chains[name] = nil
			// A chain that is not built in has "-" for a policy.
			if policy != "-" {
				t.policies[name] = policy
			}
		case strings.HasPrefix(line, "-A "):
			name, rule, _ := strings.Cut(line[len("-A "):], " ")
			out[table].chains[name] = append(out[table].chains[name], rule)
		default:
			return nil, fmt.Errorf("line %q is of no known form", line)
		}
	}
	if table != "" && !strings.Contains(text, "COMMIT") {
		return nil, errors.New("it ends before COMMIT")
	}
	return out, nil
}

// incompatible recognises the comment that iptables-nft-save prints in the
// place of a table that something else than iptables has written to. Only the
// tables that we use matter.
func incompatible(comment string) (table string, is bool) {
	for _, t := range []string{"nat", "filter", "mangle"} {
		if strings.HasPrefix(comment, "# Table `"+t+"' is incompatible") {
			return t, true
		}
	}
	return "", false
}

// words splits a rule as iptables-save prints it: a word with spaces in it
// stands between double quotes, in which a backslash protects the next byte.
func words(rule string) []string {
	var out []string
	var word []byte
	in, quoted := false, false
	for i := 0; i < len(rule); i++ {
		switch c := rule[i]; {
		case c == '\\' && quoted && i+1 < len(rule):
			i++
			word = append(word, rule[i])
		case c == '"':
			quoted = !quoted
			in = true
		case c == ' ' && !quoted:
			if in {
				out = append(out, string(word))
			}
			word, in = nil, false
		default:
			word = append(word, c)
			in = true
		}
	}
	if in {
		out = append(out, string(word))
	}
	return out
}

// target is where a rule leads: a chain, ACCEPT, LOG and so on; empty for a
// rule that only counts.
func target(rule string) string {
	ws := words(rule)
	for _, flag := range []string{"-j", "-g"} {
		if i := slices.Index(ws, flag); i >= 0 && i+1 < len(ws) {
			return ws[i+1]
		}
	}
	return ""
}
