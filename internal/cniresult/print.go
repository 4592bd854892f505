package cniresult

import (
	"io"
	"net"
	"strconv"

	"github.com/containernetworking/cni/pkg/types"
	types020 "github.com/containernetworking/cni/pkg/types/020"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/dcos/dcos-overlay/internal/plainjson"
)

// Print writes a result as the library would, but for blanks. What an ADD
// usually answers needs no look at the library's types, which takes longer than
// all the rest of it.
func Print(w io.Writer, result types.Result) error {
	p := printer{}
	switch r := result.(type) {
	case *current.Result:
		p.odd = !r.DNS.IsEmpty()
		p.begin(r.CNIVersion)
		list(&p, "interfaces", r.Interfaces, func(i *current.Interface) {
			p.odd = p.odd || i.SocketPath != "" || i.PciID != ""
			p.link(i.Name, i.Mac, i.Mtu, i.Sandbox)
		})
		list(&p, "ips", r.IPs, func(ip *current.IPConfig) { p.ip("", ip.Interface, ip.Address, ip.Gateway) })
		list(&p, "routes", r.Routes, func(r *types.Route) { p.route(*r) })
	case *types040.Result:
		p.odd = !r.DNS.IsEmpty()
		p.begin(r.CNIVersion)
		list(&p, "interfaces", r.Interfaces, func(i *types040.Interface) { p.link(i.Name, i.Mac, 0, i.Sandbox) })
		list(&p, "ips", r.IPs, func(ip *types040.IPConfig) { p.ip(ip.Version, ip.Interface, ip.Address, ip.Gateway) })
		list(&p, "routes", r.Routes, func(r *types.Route) { p.route(*r) })
		p.raw(`,"dns":{}`)
	case *types020.Result:
		p.odd = !r.DNS.IsEmpty()
		p.begin(r.CNIVersion)
		p.family("ip4", r.IP4)
		p.family("ip6", r.IP6)
		p.raw(`,"dns":{}`)
	default:
		p.odd = true
	}
	if p.odd {
		return result.PrintTo(w)
	}
	p.raw("}")
	_, err := w.Write(p.out)
	return err
}

// printer writes JSON; odd says that there is something that it can't write.
type printer struct {
	out []byte
	odd bool
}

func (p *printer) raw(text string) { p.out = append(p.out, text...) }

func (p *printer) text(text string) {
	p.odd = p.odd || !plainjson.Quotable(text)
	p.raw(`"` + text + `"`)
}

// begin begins a result. All that have a version begin with it.
func (p *printer) begin(version string) {
	p.odd = p.odd || version == ""
	p.raw(`{"cniVersion":`)
	p.text(version)
}

// list writes a field of a result, unless there is nothing in it.
func list[T any](p *printer, name string, items []*T, write func(*T)) {
	if len(items) == 0 {
		return
	}
	p.raw(`,"` + name + `":[`)
	for i, item := range items {
		if i > 0 {
			p.raw(",")
		}
		if item == nil {
			p.odd = true
			return
		}
		write(item)
	}
	p.raw("]")
}

func (p *printer) link(name, mac string, mtu int, sandbox string) {
	p.raw(`{"name":`)
	p.text(name)
	if mac != "" {
		p.raw(`,"mac":`)
		p.text(mac)
	}
	if mtu != 0 {
		p.raw(`,"mtu":` + strconv.Itoa(mtu))
	}
	if sandbox != "" {
		p.raw(`,"sandbox":`)
		p.text(sandbox)
	}
	p.raw("}")
}

func (p *printer) ip(version string, link *int, address net.IPNet, gateway net.IP) {
	p.raw("{")
	if version != "" {
		p.raw(`"version":`)
		p.text(version)
		p.raw(",")
	}
	if link != nil {
		p.raw(`"interface":` + strconv.Itoa(*link) + ",")
	}
	p.raw(`"address":`)
	p.text(address.String())
	p.by("gateway", gateway)
	p.raw("}")
}

func (p *printer) route(r types.Route) {
	p.odd = p.odd || r.MTU != 0 || r.AdvMSS != 0 || r.Priority != 0 || r.Table != nil || r.Scope != nil
	p.raw(`{"dst":`)
	p.text(r.Dst.String())
	p.by("gw", r.GW)
	p.raw("}")
}

// by writes a gateway, if there is one.
func (p *printer) by(name string, gateway net.IP) {
	if len(gateway) > 0 {
		p.raw(`,"` + name + `":`)
		p.text(gateway.String())
	}
}

// family is an address family in a result of version 0.1 or 0.2.
func (p *printer) family(name string, c *types020.IPConfig) {
	if c == nil {
		return
	}
	p.raw(`,"` + name + `":{"ip":`)
	p.text(c.IP.String())
	p.by("gateway", c.Gateway)
	for i, r := range c.Routes {
		if i == 0 {
			p.raw(`,"routes":[`)
		} else {
			p.raw(",")
		}
		p.route(r)
	}
	if len(c.Routes) > 0 {
		p.raw("]")
	}
	p.raw("}")
}
