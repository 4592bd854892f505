package cniconf

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
)

// Attachments are those that a GC must leave alone. The specification spells
// their key in two ways; what either of them lists is valid. told is false
// when there is no list: libcni then ends by DEL what it knows of, and a
// plugin that took everything else away would take other runtimes' containers.
func (c *Conf) Attachments() (valid map[types.GCAttachment]bool, told bool, err error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(c.Stdin, &keys); err != nil {
		return nil, false, types.NewError(types.ErrDecodingFailure, "read the CNI configuration: "+err.Error(), "")
	}
	valid = map[types.GCAttachment]bool{}
	for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
		text, ok := keys[key]
		if !ok {
			continue
		}
		told = true
		var list []types.GCAttachment
		if err := json.Unmarshal(text, &list); err != nil {
			return nil, false, types.NewError(types.ErrDecodingFailure, "read "+key+": "+err.Error(), "")
		}
		for _, a := range list {
			valid[a] = true
		}
	}
	return valid, told, nil
}
