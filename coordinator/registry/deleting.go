package registry

import (
	"maps"
	"slices"

	"github.com/dcos/dcos-overlay/internal/api"
)

// networkEvent is the configuration as it is now. It is pure.
func (x *index) networkEvent() api.Event {
	return api.Event{
		Type: api.EventNetwork, Network: x.net,
		Deleting: x.deleting(), Deleted: slices.Sorted(maps.Keys(x.deleted)),
	}
}

// deleting are the overlays that are being deleted, in the configured order.
func (x *index) deleting() []string {
	var out []string
	for _, o := range x.net.Overlays {
		if x.overlays[o.Name].Deleting {
			out = append(out, o.Name)
		}
	}
	return out
}
