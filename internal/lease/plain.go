package lease

import (
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// Plain reads an Agent that is plainly written, as json.Unmarshal would; the
// document is odd where that can't be told.
func Plain(v plainjson.Value) Agent {
	a := Agent{ID: v.Get("id").Text(), IP: v.Get("ip").Addr(), VTEP: plainVTEP(v.Get("vtep"))}
	if conf := v.Get("network_config"); conf.There() {
		a.Config = PlainConfig(conf)
	}
	if list := v.Get("overlays"); list.There() {
		a.Overlays = []Overlay{}
		for _, o := range list.List() {
			a.Overlays = append(a.Overlays, plainOverlay(o))
		}
	}
	v.Closed()
	return a
}

// PlainConfig is Plain for a NetworkConfig, with its defaults.
func PlainConfig(v plainjson.Value) NetworkConfig {
	c := DefaultNetworkConfig()
	c.AllocateSubnet = v.Get("allocate_subnet").Bool(c.AllocateSubnet)
	c.MesosBridge = v.Get("mesos_bridge").Bool(c.MesosBridge)
	c.DockerBridge = v.Get("docker_bridge").Bool(c.DockerBridge)
	c.OverlayMTU = int(v.Get("overlay_mtu").Int())
	c.EnableIPv6 = v.Get("enable_ipv6").Bool(c.EnableIPv6)
	c.KeepHalves = v.Get("keep_halves").Bool(c.KeepHalves)
	v.Closed()
	return c
}

func plainVTEP(v plainjson.Value) VTEP {
	t := VTEP{IP: v.Get("ip").Prefix(), IP6: v.Get("ip6").Prefix()}
	if mac := v.Get("mac"); mac.There() {
		var err error
		if t.MAC, err = network.ParseMAC(mac.Text()); err != nil {
			v.Odd()
		}
	}
	v.Closed()
	return t
}

func plainOverlay(v plainjson.Value) Overlay {
	split, state := v.Get("split"), v.Get("state")
	o := Overlay{
		Name:    v.Get("name").Text(),
		Subnets: plainPrefixes(v.Get("subnets")), Subnets6: plainPrefixes(v.Get("subnets6")),
		Split: Split{
			DockerPrefix: int(split.Get("docker_prefix").Int()), DockerPrefix6: int(split.Get("docker_prefix6").Int()),
			Whole: split.Get("whole").Bool(false),
		},
		State: State{Status: Status(state.Get("status").Text()), Error: state.Get("error").Text()},
	}
	if list := v.Get("addresses"); list.There() {
		o.Addresses = []Address{}
		for _, a := range list.List() {
			o.Addresses = append(o.Addresses, Address{IP: a.Get("ip").Addr(), Container: a.Get("container").Text(), Interface: a.Get("interface").Text()})
			a.Closed()
		}
	}
	split.Closed()
	state.Closed()
	v.Closed()
	return o
}

func plainPrefixes(v plainjson.Value) []netip.Prefix {
	if !v.There() {
		return nil
	}
	out := []netip.Prefix{}
	for _, p := range v.List() {
		out = append(out, p.Prefix())
	}
	return out
}
