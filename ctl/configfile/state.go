package configfile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"go.yaml.in/yaml/v3"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
	"github.com/dcos/dcos-overlay/internal/network"
)

// state checks a state that shall be imported: that nothing is held twice, and
// that each agent's part is what its network would give it.
func (f *file) state(data []byte) {
	s, err := masterstate.Parse(data)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		line := 1
		for _, b := range data[:min(int(wrong.Offset), len(data))] {
			if b == '\n' {
				line++
			}
		}
		f.problems = append(f.problems, network.Problem{Path: wrong.Field, Line: line, Message: fmt.Sprintf("want %s, have %s", wrong.Type.Kind(), wrong.Value)})
		return
	case err != nil:
		n := f.root
		// The error of an address quotes it.
		if m := regexp.MustCompile(`"([^"]+)"`).FindStringSubmatch(err.Error()); m != nil {
			n = cmp.Or(scalar(f.root, m[1]), n)
		}
		f.problems = append(f.problems, network.Problem{Line: n.Line, Column: n.Column, Message: fmt.Sprintf("this can't be read: %v", err)})
		return
	}
	for _, p := range s.Network.Validate() {
		path := "network"
		if p.Path != "" {
			path += "." + p.Path
		}
		f.fail(path, "%s", p.Message)
	}
	seen := map[string]string{}
	once := func(path, what, value string) {
		if first, ok := seen[what+value]; ok {
			f.fail(path, "%s %s is that of %s, too", what, value, first)
			return
		}
		seen[what+value] = path
	}
	for i, a := range s.Agents {
		path := fmt.Sprintf("agents[%d]", i)
		if !a.IP.IsValid() {
			f.fail(path, "it has no ip")
			continue
		}
		once(path+".ip", "address", a.IP.String())
		for j, o := range a.Overlays {
			f.held(s.Network, fmt.Sprintf("%s.overlays[%d]", path, j), o, once)
			if v := o.Backend.VXLAN; j == 0 && v.VTEPIP.IsValid() {
				at := fmt.Sprintf("%s.overlays[%d].backend.vxlan", path, j)
				once(at+".vtep_ip", "VTEP", v.VTEPIP.Addr().String())
				f.vtep(s.Network, at, v)
			}
		}
	}
}

// scalar is the first node below n with that text, or nil.
func scalar(n *yaml.Node, text string) *yaml.Node {
	if n.Kind == yaml.ScalarNode && n.Value == text {
		return n
	}
	for _, c := range n.Content {
		if found := scalar(c, text); found != nil {
			return found
		}
	}
	return nil
}

func (f *file) vtep(n network.Network, path string, v masterstate.VXLAN) {
	if !n.VTEPSubnet.Contains(v.VTEPIP.Addr()) {
		f.fail(path+".vtep_ip", "%s is not in vtep_subnet (%s)", v.VTEPIP, n.VTEPSubnet)
		return
	}
	if want, err := n.VTEPMAC(v.VTEPIP.Addr()); err == nil && want != v.VTEPMAC {
		f.fail(path+".vtep_mac", "%s is not the MAC of VTEP %s, which is %s", v.VTEPMAC, v.VTEPIP.Addr(), want)
	}
}

// held checks what one agent has of one overlay.
func (f *file) held(n network.Network, path string, o masterstate.Overlay, once func(path, what, value string)) {
	info, ok := n.Overlay(o.Info.Name)
	if !ok {
		f.fail(path+".info.name", "there is no overlay %q in network.overlays", o.Info.Name)
		return
	}
	l := lease.Overlay{Name: info.Name, Split: lease.Split{DockerPrefix: info.DockerPrefix, DockerPrefix6: info.DockerPrefix6}}
	for _, s := range []struct {
		field         string
		have, space   netip.Prefix
		bits, halving int
		list          *[]netip.Prefix
	}{
		{"subnet", o.Subnet, info.Subnet, info.Prefix, 31, &l.Subnets},
		{"subnet6", o.Subnet6, info.Subnet6, info.Prefix6, 127, &l.Subnets6},
	} {
		at := path + "." + s.field
		switch {
		case !s.have.IsValid():
			continue
		case !s.space.IsValid():
			f.fail(at, "overlay %s has no %s", info.Name, s.field)
			continue
		case s.have != s.have.Masked() || s.have.Bits() != s.bits || !s.space.Contains(s.have.Addr()):
			f.fail(at, "%s is not a subnet that overlay %s (%s in /%d) gives", s.have, info.Name, s.space, s.bits)
			continue
		}
		once(at, "subnet", s.have.String())
		if s.have.Bits() <= s.halving {
			*s.list = append(*s.list, s.have)
		}
	}
	if m := o.MesosBridge; m != nil && o.DockerBridge == nil {
		// Mesos alone has all, or its half as in DC/OS.
		l.Split.Whole = m.IP.IsValid() && m.IP == o.Subnet || m.IP6.IsValid() && m.IP6 == o.Subnet6
	}
	mesos4, mesos6 := l.MesosSide()
	docker4, docker6 := l.DockerSide()
	f.bridge(path+".mesos_bridge", o.MesosBridge, info.MesosBridge(), first(mesos4), first(mesos6))
	f.bridge(path+".docker_bridge", o.DockerBridge, info.DockerBridge(), docker4, docker6)
}

func first(s lease.Side) netip.Prefix {
	if len(s) == 0 {
		return netip.Prefix{}
	}
	return s[0]
}

// bridge checks one containerizer's half.
func (f *file) bridge(path string, b *masterstate.Bridge, name string, v4, v6 netip.Prefix) {
	if b == nil {
		return
	}
	if b.Name != name {
		f.fail(path+".name", "%q is not the bridge's name, which is %q", b.Name, name)
	}
	for _, s := range []struct {
		field      string
		have, want netip.Prefix
	}{{"ip", b.IP, v4}, {"ip6", b.IP6, v6}} {
		if s.have != s.want && s.want.IsValid() {
			f.fail(path+"."+s.field, "%s is not its half of the agent's subnet, which is %s", s.have, s.want)
		}
	}
}
