package cniconf

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
)

// Attachments are those that a GC must leave alone. The specification spells
// their key in two ways; what either of them lists is valid. A GC without any
// list is an error: it would take all addresses away.
func (c *Conf) Attachments() (map[types.GCAttachment]bool, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(c.Stdin, &keys); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read the CNI configuration: "+err.Error(), "")
	}
	valid := map[types.GCAttachment]bool{}
	there := false
	for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
		text, ok := keys[key]
		if !ok {
			continue
		}
		there = true
		var list []types.GCAttachment
		if err := json.Unmarshal(text, &list); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, "read "+key+": "+err.Error(), "")
		}
		for _, a := range list {
			valid[a] = true
		}
	}
	if !there {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "GC without the list of valid attachments, cni.dev/valid-attachments: there must be one, though it may be empty", "")
	}
	return valid, nil
}
