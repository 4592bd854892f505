package networkfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/dcos/dcos-overlay/internal/network"
)

// object is a mapping whose fields are read by name. What has not the type
// that is asked for is put down as a problem and read as the zero value.
type object struct {
	r      *reader
	path   string
	fields map[string]*yaml.Node
	keys   []*yaml.Node
}

// object reads n, the value at path, as a mapping without repeated keys.
func (r *reader) object(path string, n *yaml.Node) (object, bool) {
	r.at[path] = n
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		r.wrongType(path, n, "an object")
		return object{}, false
	}
	o := object{r: r, path: path, fields: make(map[string]*yaml.Node, len(n.Content)/2)}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if first, ok := o.fields[key.Value]; ok && key.Kind == yaml.ScalarNode {
			r.fail(o.child(key.Value), key, "is given twice; the first is in line %d", first.Line)
			continue
		}
		o.fields[key.Value] = n.Content[i+1]
		o.keys = append(o.keys, key)
	}
	return o, true
}

// allow puts down every field that is not one of known.
func (o object) allow(known ...string) {
	for _, key := range o.keys {
		if !slices.Contains(known, key.Value) {
			o.r.fail(o.child(key.Value), key, "there is no such field; there are %s", strings.Join(known, ", "))
		}
	}
}

// has tells whether one of names is a field.
func (o object) has(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return o.fields[name] != nil })
}

func (o object) child(name string) string {
	if o.path == "" {
		return name
	}
	return o.path + "." + name
}

// field is the value called name and its path; nil where there is none.
func (o object) field(name string) (path string, n *yaml.Node) {
	path = o.child(name)
	n = o.fields[name]
	if n == nil {
		return path, nil
	}
	o.r.at[path] = n
	return path, resolve(n)
}

func (o object) text(name string) string {
	path, n := o.field(name)
	switch {
	case n == nil:
		return ""
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str":
		return n.Value
	case n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null":
		o.r.wrongType(path, n, "text in quotes")
	default:
		o.r.wrongType(path, n, "text")
	}
	return ""
}

func (o object) number(name string) int {
	path, n := o.field(name)
	if n == nil {
		return 0
	}
	v, err := strconv.Atoi(n.Value)
	// YAML has numbers that are read otherwise than they look, such as 010;
	// only those that are written as a person would write them are taken.
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || strconv.Itoa(v) != n.Value {
		o.r.wrongType(path, n, "a whole number")
		return 0
	}
	return v
}

// duration is text such as 90s, or a number of seconds.
func (o object) duration(name string) network.Duration {
	path, n := o.field(name)
	if n == nil {
		return 0
	}
	d, err := network.ParseDuration(n.Value)
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!str" || err != nil {
		o.r.wrongType(path, n, "a time such as 90s, or a number of seconds")
		return 0
	}
	return d
}

func (o object) boolean(name string) *bool {
	path, n := o.field(name)
	if n == nil {
		return nil
	}
	var v bool
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(&v) != nil {
		o.r.wrongType(path, n, "true or false")
		return nil
	}
	return &v
}

// isTrue is false where there is no field called name.
func (o object) isTrue(name string) bool {
	v := o.boolean(name)
	return v != nil && *v
}

func (o object) list(name string) []*yaml.Node {
	path, n := o.field(name)
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.SequenceNode:
		o.r.wrongType(path, n, "a list")
		return nil
	}
	return n.Content
}

func (o object) prefix(name string) netip.Prefix {
	path, n := o.field(name)
	if n == nil {
		return netip.Prefix{}
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || n.Value == "" {
		o.r.wrongType(path, n, "a subnet such as "+example(name))
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(n.Value)
	if err == nil {
		return p
	}
	o.r.wrong = append(o.r.wrong, path)
	if _, err := netip.ParseAddr(n.Value); err == nil {
		o.r.fail(path, n, "%q has no length; write it as in %s", n.Value, example(name))
	} else {
		o.r.fail(path, n, "%q is not a subnet such as %s", n.Value, example(name))
	}
	return netip.Prefix{}
}

func example(name string) string {
	if strings.HasSuffix(name, "6") {
		return "fd01:b::/64"
	}
	return "9.0.0.0/8"
}

// wrongType says what the value at path is, and what it should be.
func (r *reader) wrongType(path string, n *yaml.Node, want string) {
	r.wrong = append(r.wrong, path)
	n = resolve(n)
	have := n.Value
	switch {
	case n.Kind == yaml.MappingNode:
		have = "an object"
	case n.Kind == yaml.SequenceNode:
		have = "a list"
	case n.ShortTag() == "!!null":
		have = "nothing"
	case n.ShortTag() == "!!str":
		have = fmt.Sprintf("%.40q", n.Value)
	}
	r.fail(path, n, "want %s, have %s", want, have)
}

// resolve is what n stands for, where n is a YAML alias.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}
