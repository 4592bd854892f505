package cniconf

import "encoding/json"

// labels are a container's, each "key" or "key=value".
type labels []string

// label is one of them in JSON.
type label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// UnmarshalJSON reads the list of the CNI conventions, or Mesos's, which is
// inside an object. Whatever else somebody puts there for others is no label.
func (l *labels) UnmarshalJSON(b []byte) error {
	var mesos struct {
		Labels []label `json:"labels"`
	}
	var list []label
	if json.Unmarshal(b, &list) != nil && json.Unmarshal(b, &mesos) == nil {
		list = mesos.Labels
	}
	for _, one := range list {
		text := one.Key
		if one.Value != "" {
			text += "=" + one.Value
		}
		*l = append(*l, text)
	}
	return nil
}
