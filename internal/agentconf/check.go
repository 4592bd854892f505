package agentconf

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Check lists all that is wrong with an agent.json, in the order of the file;
// Parse tells of the first only.
func Check(data []byte) network.Problems {
	var out network.Problems
	lines := map[string]int{}
	f := newFile()
	// Fields that can't be read keep their defaults, about which rules have
	// nothing to say.
	err := f.read(data, func(p place, err error) error {
		if inner := checkInner(data, p); len(inner) > 0 {
			out = append(out, inner...)
			return nil
		}
		out = append(out, network.Problem{Path: p.name, Line: p.line, Message: err.Error()})
		return nil
	})
	if err != nil {
		return append(out, placed(err.Error()))
	}
	f.locate(data, lines)
	var c Config
	for _, r := range f.rules() {
		if slices.ContainsFunc(out, func(p network.Problem) bool { return slices.Contains(r.fields, p.Path) }) {
			continue
		}
		for _, err := range r.check(&c) {
			p := network.Problem{Message: err.Error()}
			p.Path, p.Message, _ = strings.Cut(err.Error(), ": ")
			p.Line = lines[p.Path]
			for _, name := range r.fields {
				if lines[p.Path] == 0 {
					p.Line = max(p.Line, lines[name])
				}
			}
			out = append(out, p)
		}
	}
	out.Sort()
	return out
}

// placed takes the line out of an error about the whole file.
func placed(text string) network.Problem {
	p := network.Problem{Line: 1, Message: text}
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, message, _ := strings.Cut(rest, ": ")
		if json.Unmarshal([]byte(number), &p.Line) == nil {
			p.Message = message
		}
	}
	return p
}

// locate notes the line of each field, those of network_config by their path.
func (f *file) locate(data []byte, lines map[string]int) {
	note := func(prefix string) func(place, error) error {
		return func(p place, _ error) error {
			if lines[prefix+p.name] == 0 {
				lines[prefix+p.name] = p.line
			}
			return nil
		}
	}
	outer := func(p place, _ error) error {
		if p.name == networkConfig {
			inside(data, p, nil, note(networkConfig+"."))
		}
		return note("")(p, nil)
	}
	// Without known fields, each is one to be told of.
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err == nil {
		_ = readFields(dec, data, nil, outer) // it was read without error before
	}
}

const networkConfig = "network_config"

// checkInner lists what is wrong with the fields of network_config.
func checkInner(data []byte, p place) (out network.Problems) {
	if p.name != networkConfig {
		return nil
	}
	type config lease.NetworkConfig // without its own way of being read
	var c config
	fields := []field{
		{"allocate_subnet", &c.AllocateSubnet}, {"mesos_bridge", &c.MesosBridge}, {"docker_bridge", &c.DockerBridge},
		{"overlay_mtu", &c.OverlayMTU}, {"enable_ipv6", &c.EnableIPv6},
		{"keep_halves", &c.KeepHalves},
	}
	inside(data, p, fields, func(in place, err error) error {
		out = append(out, network.Problem{Path: networkConfig + "." + in.name, Line: in.line, Message: err.Error()})
		return nil
	})
	return out
}

// inside reads the fields of the object that p's value is, if it is one.
func inside(data []byte, p place, fields []field, wrong func(place, error) error) {
	value := bytes.TrimSpace(p.value)
	if len(value) == 0 || value[0] != '{' {
		return
	}
	dec := json.NewDecoder(bytes.NewReader(value))
	if _, err := dec.Token(); err != nil {
		return
	}
	begin := p.offset + int64(bytes.Index(data[p.offset:], value))
	_ = readFields(dec, value, fields, func(in place, err error) error { // it was read as JSON before
		in.line = lineAt(data, begin+in.offset)
		return wrong(in, err)
	})
}

// Fields are the names of all fields of an agent.json.
func Fields() []string {
	var out []string
	for _, f := range newFile().fields() {
		out = append(out, f.name)
	}
	return out
}
