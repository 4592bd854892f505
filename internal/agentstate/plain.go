package agentstate

import (
	"encoding/json"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// decode reads the content of lease.json: without a look at types, where it is
// as a program of this version writes it.
func (h *Held) decode(data []byte) error {
	v := plainjson.Parse(data)
	p := Held{Agent: lease.Plain(v.Get("agent")), Network: network.Plain(v.Get("network")), Revision: v.Get("revision").Int(), file: h.file}
	if list := v.Get("deleting"); list.There() {
		p.Deleting = []string{}
		for _, name := range list.List() {
			p.Deleting = append(p.Deleting, name.Text())
		}
	}
	if v.Closed(); v.Plain() {
		*h = p
		return nil
	}
	return json.Unmarshal(data, h)
}
