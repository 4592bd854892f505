package agentconf

import (
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// readPlain is read for a file that is plainly written and has nothing that is
// unknown; false means that read has to judge.
func (f *file) readPlain(data []byte) bool {
	v := plainjson.Parse(data)
	p := *f
	for _, field := range p.fields() {
		value := v.Get(field.name)
		if !value.There() {
			continue
		}
		switch to := field.value.(type) {
		case *string:
			*to = value.Text()
		case *bool:
			*to = value.Bool(false)
		case *int:
			*to = int(value.Int())
		case *lease.NetworkConfig:
			*to = lease.PlainConfig(value)
		case *masters:
			*to = plainMasters(value)
		default:
			v.Odd()
		}
	}
	if v.Closed(); v.Plain() {
		*f = p
	}
	return v.Plain()
}

func plainMasters(v plainjson.Value) masters {
	if v.IsText() {
		return masters{v.Text()}
	}
	list := masters{}
	for _, one := range v.List() {
		list = append(list, one.Text())
	}
	return list
}
