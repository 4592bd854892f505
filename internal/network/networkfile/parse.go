// Package networkfile reads the network configuration that an operator wrote:
// DC/OS's master.json, its overlay object alone, or its config.yaml.
//
// It is apart from package network because the CNI plugins are linked with
// that one, and should not pay for a YAML library at every start.
package networkfile

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/dcos/dcos-overlay/internal/network"
)

// masterFields are those of master.json. All but network are of DC/OS's
// replicated log, which is no more; they are accepted and not looked at.
var masterFields = []string{"network", "replicated_log_dir", "replicated_log_timeout", "zk"}

// Parse reads data, in JSON or YAML, and validates it. Which of the formats it
// is in is told by its content. The error is a network.Problems: everything
// that is wrong, each with its line and column.
func Parse(data []byte) (network.Network, error) {
	root, problem := document(data)
	if problem != nil {
		return network.Network{}, network.Problems{*problem}
	}
	r := reader{at: map[string]*yaml.Node{}}
	n, ok := r.file(root)
	if ok {
		r.merge(n.Validate())
	}
	if len(r.problems) > 0 {
		r.problems.Sort()
		return network.Network{}, r.problems
	}
	return n, nil
}

// reader turns nodes into a Network, and gathers what is wrong on the way.
type reader struct {
	problems network.Problems
	// at has the node of each path; wrong are the paths that have no usable
	// value, so that they are not said to be missing on top of that.
	at    map[string]*yaml.Node
	wrong []string
}

// file finds the network in the file whose root is n, and reads it. Without
// one there is nothing to validate.
func (r *reader) file(n *yaml.Node) (network.Network, bool) {
	root, ok := r.object("", n)
	if !ok {
		return network.Network{}, false
	}
	inner := root
	switch {
	case root.has("dcos_overlay_network"):
		inner, ok = r.inner(root, "dcos_overlay_network")
	case root.has("network"):
		root.allow(masterFields...)
		inner, ok = r.inner(root, "network")
	case root.has("vtep_subnet", "vtep_subnet6", "vtep_mac_oui", "vtep_mtu", "overlays"):
	case root.has("network_config", "cni_dir", "cni_data_dir", "master", "max_configuration_attempts"):
		r.fail("", n, "this is an agent's configuration (agent.json), which the companion takes with --agent-config; the network's is a master.json, a config.yaml, or an object with vtep_subnet and overlays")
		return network.Network{}, false
	default:
		r.fail("", n, "there is no overlay network here: want \"network\" (master.json), \"dcos_overlay_network\" (config.yaml), or an object with vtep_subnet and overlays")
		return network.Network{}, false
	}
	if !ok {
		return network.Network{}, false
	}
	return inner.network(), true
}

// inner reads the field of root that holds the network. Paths begin there, so
// that they are the same in every format.
func (r *reader) inner(root object, name string) (object, bool) {
	n := root.fields[name]
	if resolve(n).Kind != yaml.MappingNode {
		r.wrongType(name, n, "an object")
		return object{}, false
	}
	return r.object("", n)
}

func (o object) network() network.Network {
	o.allow("vtep_subnet", "vtep_subnet6", "vtep_mac_oui", "vtep_mtu", "overlays")
	n := network.Network{
		VTEPSubnet:  o.prefix("vtep_subnet"),
		VTEPSubnet6: o.prefix("vtep_subnet6"),
		VTEPMACOUI:  o.text("vtep_mac_oui"),
		VTEPMTU:     o.number("vtep_mtu"),
	}
	for i, item := range o.list("overlays") {
		n.Overlays = append(n.Overlays, o.r.overlay(fmt.Sprintf("overlays[%d]", i), item))
	}
	return n
}

func (r *reader) overlay(path string, n *yaml.Node) network.Overlay {
	o, ok := r.object(path, n)
	if !ok {
		return network.Overlay{}
	}
	o.allow("name", "subnet", "prefix", "subnet6", "prefix6", "enabled",
		"max_subnets", "docker_prefix", "docker_prefix6", "isolated",
		"static_subnet", "static_subnet6", "static_takeover")
	return network.Overlay{
		Name:          o.text("name"),
		Subnet:        o.prefix("subnet"),
		Prefix:        o.number("prefix"),
		Subnet6:       o.prefix("subnet6"),
		Prefix6:       o.number("prefix6"),
		Enabled:       o.boolean("enabled"),
		MaxSubnets:    o.number("max_subnets"),
		DockerPrefix:  o.number("docker_prefix"),
		DockerPrefix6: o.number("docker_prefix6"),
		Isolated:      o.isTrue("isolated"),

		StaticSubnet:   o.prefix("static_subnet"),
		StaticSubnet6:  o.prefix("static_subnet6"),
		StaticTakeover: o.duration("static_takeover"),
	}
}

// merge adds the problems that validation found, at the lines of their fields
// or, for a missing field, of what it is missing from.
func (r *reader) merge(found network.Problems) {
	for _, p := range found {
		if r.isWrong(p.Path) {
			continue
		}
		path := p.Path
		for r.at[path] == nil && path != "" {
			path = path[:max(0, strings.LastIndexByte(path, '.'))]
		}
		if n := r.at[path]; n != nil {
			p.Line, p.Column = n.Line, n.Column
		}
		r.problems = append(r.problems, p)
	}
}

// isWrong tells whether the field at path, or what it is in, had no usable
// value.
func (r *reader) isWrong(path string) bool {
	return slices.ContainsFunc(r.wrong, func(w string) bool {
		return path == w || strings.HasPrefix(path, w+".")
	})
}

func (r *reader) fail(path string, n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, network.Problem{
		Path: path, Line: n.Line, Column: n.Column, Message: fmt.Sprintf(format, args...),
	})
}
