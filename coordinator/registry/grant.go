package registry

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/dcos/dcos-overlay/internal/api"
)

// Grant is the answer to a claim. The record was encoded when it was written,
// and the network when it came, so that its JSON is put together of these.
type Grant struct {
	api.ClaimResponse
	record, network []byte
}

// networkJSON is the network as JSON.
func (x *index) networkJSON() ([]byte, error) {
	if x.netJSON == nil {
		encoded, err := json.Marshal(x.net)
		if err != nil {
			return nil, fmt.Errorf("encode the network: %w", err)
		}
		x.netJSON = encoded
	}
	return x.netJSON, nil
}

// AppendJSON appends g to b, as json.Marshal of its ClaimResponse writes it.
func (g Grant) AppendJSON(b []byte) ([]byte, error) {
	b = append(append(b, `{"agent":`...), g.record...)
	b = append(append(b, `,"network":`...), g.network...)
	if len(g.Deleting) > 0 {
		names, err := json.Marshal(g.Deleting)
		if err != nil {
			return nil, fmt.Errorf("encode the names of overlays: %w", err)
		}
		b = append(append(b, `,"deleting":`...), names...)
	}
	b = strconv.AppendInt(append(b, `,"revision":`...), g.Revision, 10)
	return append(b, '}'), nil
}
