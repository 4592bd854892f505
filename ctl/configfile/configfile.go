// Package configfile tells which of the configuration files that operators
// have a text is, and lists everything that is wrong with it. What the programs
// read is judged by the packages that they read it with.
package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/network/networkfile"
)

// Kind is what a file is, in words.
type Kind string

// The kinds of files.
const (
	KindUnknown Kind = "unknown"
	KindNetwork Kind = "network configuration"
	KindAgent   Kind = "configuration of an agent"
	KindCNI     Kind = "CNI configuration"
	KindCNIList Kind = "CNI configuration list"
	KindState   Kind = "state of the overlays"
)

// Check tells what data is, and lists all that is wrong with it, in the order
// of the file.
func Check(data []byte) (Kind, network.Problems) {
	root, problems := parse(data)
	if root == nil {
		return KindUnknown, problems
	}
	kind := recognise(root)
	switch kind {
	case KindNetwork:
		_, err := networkfile.Parse(data)
		errors.As(err, &problems)
		return kind, problems
	case KindAgent:
		return kind, agentconf.Check(data)
	case KindUnknown:
		return kind, network.Problems{{Line: root.Line, Message: "this is no configuration that is known here: want a network configuration (vtep_subnet, overlays), " +
			"an agent.json (master, network_config), a CNI configuration (name, type), or a state (agents)"}}
	}
	// Their readers know JSON alone.
	if p := notJSON(data); p != nil {
		return kind, network.Problems{*p}
	}
	f := &file{root: root}
	f.repeated("", root)
	switch kind {
	case KindCNI:
		f.cni()
	case KindCNIList:
		f.cniList()
	case KindState:
		f.state(data)
	}
	f.problems.Sort()
	return kind, f.problems
}

// parse reads data as YAML, which JSON is, too; without root the problems say
// why not.
func parse(data []byte) (*yaml.Node, network.Problems) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err == nil && len(doc.Content) > 0 {
		return doc.Content[0], nil
	}
	// It says where, and in words for people.
	_, err := networkfile.Parse(data)
	var problems network.Problems
	errors.As(err, &problems)
	return nil, problems
}

// recognise tells by the fields what a file is.
func recognise(root *yaml.Node) Kind {
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return child(root, name) != nil })
	}
	switch {
	case root.Kind != yaml.MappingNode:
		return KindUnknown
	case has("dcos_overlay_network"):
		return KindNetwork
	case has("agents"):
		return KindState
	case has("plugins"):
		return KindCNIList
	case has("type", "cniVersion", "ipam"):
		return KindCNI
	case has("network", "vtep_subnet", "vtep_subnet6", "vtep_mac_oui", "vtep_mtu", "overlays", "replicated_log_dir"):
		return KindNetwork
	case len(root.Content) == 0 || slices.ContainsFunc(agentconf.Fields(), func(name string) bool { return has(name) }):
		return KindAgent
	}
	return KindUnknown
}

// file is one whose problems are being gathered.
type file struct {
	root     *yaml.Node
	problems network.Problems
}

// notJSON is where data stops to be JSON, if it does.
func notJSON(data []byte) *network.Problem {
	var syntax *json.SyntaxError
	if !errors.As(json.Unmarshal(data, new(json.RawMessage)), &syntax) {
		return nil
	}
	before := data[:min(max(int(syntax.Offset)-1, 0), len(data))]
	return &network.Problem{
		Line: 1 + bytes.Count(before, []byte("\n")), Column: len(before) - bytes.LastIndexByte(before, '\n'),
		Message: "this is not JSON: " + syntax.Error(),
	}
}

// child is the value called name of a mapping, or nil.
func child(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// find is the node at a path such as plugins[1].ipam.type, or the nearest one
// above it.
func find(n *yaml.Node, path string) *yaml.Node {
	for path != "" {
		var step string
		step, path, _ = strings.Cut(path, ".")
		name, index, indexed := strings.Cut(step, "[")
		next := n
		if name != "" {
			next = child(n, name)
		}
		if next != nil && indexed {
			var i int
			if _, err := fmt.Sscanf(index, "%d]", &i); err != nil || next.Kind != yaml.SequenceNode || i >= len(next.Content) {
				return next
			}
			next = next.Content[i]
		}
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// fail notes a problem of what is at path.
func (f *file) fail(path, format string, args ...any) {
	n := find(f.root, path)
	f.problems = append(f.problems, network.Problem{Path: path, Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, args...)})
}

// repeated notes the fields that are there twice, of which JSON's readers take
// the last in silence.
func (f *file) repeated(path string, n *yaml.Node) {
	switch n.Kind {
	case yaml.SequenceNode:
		for i, c := range n.Content {
			f.repeated(fmt.Sprintf("%s[%d]", path, i), c)
		}
	case yaml.MappingNode:
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			at := strings.TrimPrefix(path+"."+key.Value, ".")
			if first, ok := seen[key.Value]; ok {
				f.problems = append(f.problems, network.Problem{Path: at, Line: key.Line, Column: key.Column,
					Message: fmt.Sprintf("is given twice; the first is in line %d", first)})
				continue
			}
			seen[key.Value] = key.Line
			f.repeated(at, n.Content[i+1])
		}
	}
}

// text is the text at path; false, and a problem, where there is none.
func (f *file) text(path, example string) (string, bool) {
	n := find(f.root, path)
	dot := strings.LastIndexByte(path, '.')
	switch {
	case child(find(f.root, path[:max(dot, 0)]), path[dot+1:]) == nil:
		f.fail(path, "is missing; want text such as %q", example)
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
		f.fail(path, "want text such as %q", example)
	case n.Value == "":
		f.fail(path, "is empty; want text such as %q", example)
	default:
		return n.Value, true
	}
	return "", false
}
