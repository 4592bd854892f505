package configfile

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/version"
	"go.yaml.in/yaml/v3"

	"github.com/dcos/dcos-overlay/internal/cniconf"
)

// pluginType is our main plugin's.
const pluginType = "dcos-overlay"

// networkName is what the CNI specification allows for a network's name.
const networkName = `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`

// cni checks a file with one plugin.
func (f *file) cni() {
	f.network()
	f.plugin("", f.root)
}

// cniList checks a file with several.
func (f *file) cniList() {
	f.network()
	plugins := child(f.root, "plugins")
	switch {
	case plugins.Kind != yaml.SequenceNode:
		f.fail("plugins", "want a list of plugins")
		return
	case len(plugins.Content) == 0:
		f.fail("plugins", "the list is empty; one plugin at least is needed")
		return
	}
	if child(f.root, "type") != nil {
		f.fail("type", "a list of plugins has no type; each of its plugins has one")
	}
	for i, n := range plugins.Content {
		path := fmt.Sprintf("plugins[%d]", i)
		if n.Kind != yaml.MappingNode {
			f.fail(path, "want an object")
			continue
		}
		f.plugin(path, n)
	}
}

// network checks what is of the whole: name and version.
func (f *file) network() {
	if name, ok := f.text("name", "dcos"); ok && !regexp.MustCompile(networkName).MatchString(name) {
		f.fail("name", "%q can't be a network's: want letters, digits, \"_\", \".\" and \"-\", the first a letter or digit", name)
	}
	if child(f.root, "cniVersion") == nil {
		return
	}
	if v, ok := f.text("cniVersion", "1.0.0"); ok && !slices.Contains(version.All.SupportedVersions(), v) {
		f.fail("cniVersion", "%q is not a version of CNI; there are %s", v, strings.Join(version.All.SupportedVersions(), ", "))
	}
}

// plugin checks one plugin's part. Of other projects' plugins only what tells
// the program to run is known here.
func (f *file) plugin(path string, n *yaml.Node) {
	at := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	kind, ok := f.text(at("type"), pluginType)
	if !ok {
		return
	}
	if strings.ContainsAny(kind, "/\x00") {
		f.fail(at("type"), "%q has a slash: it is the name of a program in CNI_PATH", kind)
	}
	ipam := child(n, "ipam")
	if ipam != nil && ipam.Kind != yaml.MappingNode {
		f.fail(at("ipam"), "want an object")
		return
	}
	ours := ipam != nil && child(ipam, "type") != nil && child(ipam, "type").Value == cniconf.TypeIPAM
	switch {
	case kind == pluginType:
	case ours:
		// Under another main plugin it reads the same fields.
	case kind == "mesos-cni-port-mapper":
		if d := child(n, "delegate"); d == nil || d.Kind != yaml.MappingNode {
			f.fail(at("delegate"), "is missing; it is the configuration of the plugin that is wrapped")
		} else if t := child(d, "type"); t == nil || t.Value == "" {
			f.fail(at("delegate.type"), "is missing; want text such as %q", pluginType)
		}
		return
	default:
		return
	}
	if child(f.root, "name") == nil && child(n, "overlay") == nil && (ipam == nil || child(ipam, "overlay") == nil) {
		return // that there is no name is said already
	}
	for _, err := range cniconf.Check(f.stdin(n)) {
		field, message, found := strings.Cut(err.Error(), ": ")
		if !found || strings.Contains(field, " ") {
			field, message = guess(n, err.Error()), err.Error()
		}
		place := strings.Trim(path+"."+field, ".")
		if field == "name" {
			place = field // it is the whole's
		}
		f.fail(place, "%s", message)
	}
}

// guess is the field of a plugin's part that a message is about, which names
// none, because what it is about may come from elsewhere in a running system.
func guess(n *yaml.Node, message string) string {
	switch {
	case strings.HasPrefix(message, "port mapping"):
		return "runtimeConfig.portMappings"
	case strings.Contains(message, "MAC"):
		return "runtimeConfig.mac"
	case !strings.Contains(message, "can't be an overlay"):
		return ""
	case child(child(n, "ipam"), "overlay") != nil:
		return "ipam.overlay"
	case child(n, "overlay") != nil:
		return "overlay"
	}
	return "name"
}

// stdin is what the runtime would hand to a plugin: its own part, and name and
// version of the whole.
func (f *file) stdin(n *yaml.Node) []byte {
	var own map[string]any
	// What is read as JSON can be written as JSON.
	if err := n.Decode(&own); err != nil {
		return nil
	}
	for _, name := range []string{"name", "cniVersion"} {
		if v := child(f.root, name); v != nil {
			own[name] = v.Value
		}
	}
	out, err := json.Marshal(own)
	if err != nil {
		return nil
	}
	return out
}
