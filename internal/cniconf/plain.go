package cniconf

import (
	"encoding/json"

	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// read reads the identity in a configuration.
func (r *identity) read(stdin []byte) error {
	v := plainjson.Parse(stdin)
	ipam, mapPorts := v.Get("ipam"), v.Get("mapPorts")
	p := identity{
		CNIVersion: v.Get("cniVersion").Text(), Name: v.Get("name").Text(),
		Overlay: v.Get("overlay").Text(), AgentConfig: v.Get("agentConfig").Text(),
	}
	p.IPAM.Type, p.IPAM.Overlay, p.IPAM.AgentConfig = ipam.Get("type").Text(), ipam.Get("overlay").Text(), ipam.Get("agentConfig").Text()
	if mapPorts.There() {
		is := mapPorts.Bool(false)
		p.MapPorts = &is
	}
	if v.Plain() {
		*r = p
		return nil
	}
	return json.Unmarshal(stdin, r)
}

// read reads the wishes in a configuration. Those of most are few.
func (w *wishes) read(stdin []byte) error {
	v := plainjson.Parse(stdin)
	args := v.Get("args")
	info := args.Get("org.apache.mesos").Get("network_info")
	for _, seldom := range []plainjson.Value{
		v.Get("plugins"), v.Get("ipam").Get("routes"), v.Get("dns"), v.Get("runtimeConfig"), args.Get("cni"), info.Get("port_mappings"), info.Get("labels"),
	} {
		if seldom.There() {
			seldom.Odd()
		}
	}
	var p wishes
	mesos := &p.Args.Mesos.NetworkInfo
	addrs := info.Get("ip_addresses").List()
	if info.Get("ip_addresses").There() && len(addrs) == 0 {
		v.Odd() // to encoding/json that is another list than none
	}
	for _, a := range addrs {
		mesos.IPAddresses = append(mesos.IPAddresses, struct {
			IPAddress string `json:"ip_address"`
		}{a.Get("ip_address").Text()})
	}
	if v.Plain() {
		*w = p
		return nil
	}
	return json.Unmarshal(stdin, w)
}

// ipamFields tells which of the names is in the object "ipam", in that case of
// letters.
func ipamFields(stdin []byte) (has func(name string) bool, err error) {
	v := plainjson.Parse(stdin)
	ipam := v.Get("ipam")
	if ipam.Get("type"); v.Plain() {
		return func(name string) bool { return ipam.Has(name) }, nil
	}
	var r struct {
		IPAM map[string]json.RawMessage `json:"ipam"`
	}
	if err := json.Unmarshal(stdin, &r); err != nil {
		return nil, err
	}
	return func(name string) bool { _, ok := r.IPAM[name]; return ok }, nil
}
