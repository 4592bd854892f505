package network

import "github.com/dcos/dcos-overlay/internal/plainjson"

// Plain reads a Network that is plainly written, as json.Unmarshal would; the
// document is odd where that can't be told.
func Plain(v plainjson.Value) (n Network) {
	n.VTEPSubnet, n.VTEPSubnet6 = v.Get("vtep_subnet").Prefix(), v.Get("vtep_subnet6").Prefix()
	n.VTEPMACOUI, n.VTEPMTU = v.Get("vtep_mac_oui").Text(), int(v.Get("vtep_mtu").Int())
	if list := v.Get("overlays"); list.There() {
		n.Overlays = []Overlay{}
		for _, o := range list.List() {
			n.Overlays = append(n.Overlays, plainOverlay(o))
		}
	}
	v.Closed()
	return n
}

func plainOverlay(v plainjson.Value) Overlay {
	o := Overlay{
		Name:   v.Get("name").Text(),
		Subnet: v.Get("subnet").Prefix(), Prefix: int(v.Get("prefix").Int()),
		Subnet6: v.Get("subnet6").Prefix(), Prefix6: int(v.Get("prefix6").Int()),
		MaxSubnets:   int(v.Get("max_subnets").Int()),
		DockerPrefix: int(v.Get("docker_prefix").Int()), DockerPrefix6: int(v.Get("docker_prefix6").Int()),
		Isolated:     v.Get("isolated").Bool(false),
		StaticSubnet: v.Get("static_subnet").Prefix(), StaticSubnet6: v.Get("static_subnet6").Prefix(),
	}
	if enabled := v.Get("enabled"); enabled.There() {
		is := enabled.Bool(false)
		o.Enabled = &is
	}
	if text := v.Get("static_takeover"); text.There() {
		d, err := ParseDuration(text.Text())
		if err != nil {
			v.Odd()
		}
		o.StaticTakeover = d
	}
	v.Closed()
	return o
}
