package ipam

import (
	"encoding/json"
	"strconv"

	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// encode is json.Marshal, which each ADD would have look at the type first.
func (r record) encode() ([]byte, error) {
	for _, text := range []string{r.ContainerID, r.IfName, r.Netns.Path, r.Netns.Boot, r.HostIf, r.Network, r.PortMapper} {
		if !plainjson.Quotable(text) {
			return json.Marshal(r)
		}
	}
	b := append([]byte(nil), `{"container_id":"`+r.ContainerID+`","if_name":"`+r.IfName+`","netns":{"path":"`+r.Netns.Path+`","device":`...)
	b = strconv.AppendUint(b, r.Netns.Device, 10)
	b = strconv.AppendUint(append(b, `,"inode":`...), r.Netns.Inode, 10)
	if r.Netns.Cookie != 0 {
		b = strconv.AppendUint(append(b, `,"cookie":`...), r.Netns.Cookie, 10)
	}
	b = appendText(b, "boot", r.Netns.Boot)
	b = append(b, '}')
	b = appendText(b, "host_if", r.HostIf)
	b = appendText(b, "network", r.Network)
	b = appendText(b, "port_mapper", r.PortMapper)
	if r.Fixed {
		b = append(b, `,"fixed":true`...)
	}
	b = strconv.AppendInt(append(b, `,"stamp":`...), r.Stamp, 10)
	return append(b, '}'), nil
}

func appendText(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return append(b, `,"`+name+`":"`+text+`"`...)
}

// decode is json.Unmarshal, which each DEL would have look at the type first.
func (r *record) decode(data []byte) error {
	v := plainjson.Parse(data)
	netns := v.Get("netns")
	p := record{
		ContainerID: v.Get("container_id").Text(), IfName: v.Get("if_name").Text(),
		Home: Home{
			Netns: sandbox.ID{
				Path: netns.Get("path").Text(), Device: netns.Get("device").Uint(), Inode: netns.Get("inode").Uint(),
				Cookie: netns.Get("cookie").Uint(), Boot: netns.Get("boot").Text(),
			},
			HostIf: v.Get("host_if").Text(), Network: v.Get("network").Text(), PortMapper: v.Get("port_mapper").Text(),
			Fixed: v.Get("fixed").Bool(false),
		},
		Stamp: v.Get("stamp").Int(),
	}
	if v.Plain() {
		*r = p
		return nil
	}
	return json.Unmarshal(data, r)
}
