// Package cniconf is the CNI network configuration that our plugins are called
// with: the file's own fields, and what the runtime asks for one container by
// Mesos's NetworkInfo, by runtimeConfig or by CNI_ARGS.
package cniconf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// TypeIPAM is our IPAM plugin, which dcos-overlay runs in its own process.
	TypeIPAM = "dcos-ipam"
	// DefaultVersion is the result's shape where the configuration names
	// none: Mesos's isolator knows no later one.
	DefaultVersion = "0.2.0"
)

// Conf is one call's configuration.
type Conf struct {
	CNIVersion string
	// Overlay is what the container shall be on.
	Overlay string
	// AgentConfig is the path of the agent's file; empty means the default.
	AgentConfig string
	IPAMType    string
	// Routes are the container's, in either family, by default to everywhere.
	Routes []netip.Prefix
	DNS    types.DNS
	// Addresses were asked for by the runtime; empty means any free ones.
	Addresses []netip.Addr
	// MAC was asked for by the runtime; nil means one made of the address.
	MAC *network.MAC
}

// raw is the JSON; fields that are not ours are other programs' business.
type raw struct {
	CNIVersion  string `json:"cniVersion"`
	Name        string `json:"name"`
	Overlay     string `json:"overlay"`
	AgentConfig string `json:"agentConfig"`
	IPAM        struct {
		Type        string `json:"type"`
		Overlay     string `json:"overlay"`
		AgentConfig string `json:"agentConfig"`
		Routes      []struct {
			Dst string `json:"dst"`
		} `json:"routes"`
	} `json:"ipam"`
	DNS  types.DNS `json:"dns"`
	Args struct {
		Mesos struct {
			NetworkInfo struct {
				IPAddresses []struct {
					IPAddress string `json:"ip_address"`
				} `json:"ip_addresses"`
			} `json:"network_info"`
		} `json:"org.apache.mesos"`
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		IPs []string `json:"ips"`
		MAC string   `json:"mac"`
	} `json:"runtimeConfig"`
}

// Parse reads the configuration on standard input and CNI_ARGS. Its errors are
// *types.Error with the code that the CNI specification has for them.
func Parse(stdin []byte, cniArgs string) (*Conf, error) {
	var r raw
	if err := json.Unmarshal(stdin, &r); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read the CNI configuration: "+err.Error(), "")
	}
	c := &Conf{
		CNIVersion:  first(r.CNIVersion, DefaultVersion),
		Overlay:     first(r.IPAM.Overlay, r.Overlay, r.Name),
		AgentConfig: first(r.IPAM.AgentConfig, r.AgentConfig),
		IPAMType:    first(r.IPAM.Type, TypeIPAM),
		DNS:         r.DNS,
	}
	if err := c.fill(&r, cniArgs); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "CNI configuration of network "+r.Name+": "+err.Error(), "")
	}
	return c, nil
}

func (c *Conf) fill(r *raw, cniArgs string) error {
	if c.Overlay == "" {
		return fmt.Errorf("it names no overlay: set \"name\" or \"overlay\"")
	}
	// The name becomes part of device names and paths.
	if len(c.Overlay) > network.MaxNameLen || strings.ContainsAny(c.Overlay, "/ \t\n") || c.Overlay == "." || c.Overlay == ".." {
		return fmt.Errorf("%q can't be an overlay: names have at most %d characters, and no slash or blank; where \"name\" must be another, set \"overlay\"", c.Overlay, network.MaxNameLen)
	}
	for _, route := range r.IPAM.Routes {
		p, err := netip.ParsePrefix(route.Dst)
		if err != nil {
			return fmt.Errorf("ipam.routes: %q is no subnet such as 0.0.0.0/0", route.Dst)
		}
		c.Routes = append(c.Routes, p.Masked())
	}
	if len(r.IPAM.Routes) == 0 {
		c.Routes = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	asked := append(append([]string{}, r.RuntimeConfig.IPs...), r.Args.CNI.IPs...)
	for _, a := range r.Args.Mesos.NetworkInfo.IPAddresses {
		if a.IPAddress != "" {
			asked = append(asked, a.IPAddress)
		}
	}
	mac := r.RuntimeConfig.MAC
	for _, pair := range strings.Split(cniArgs, ";") {
		switch key, value, _ := strings.Cut(pair, "="); key {
		case "IP":
			asked = append(asked, strings.Split(value, ",")...)
		case "MAC":
			mac = first(mac, value)
		}
	}
	for _, text := range asked {
		bare, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(strings.TrimSpace(bare))
		if err != nil {
			return fmt.Errorf("the address %q that was asked for is none", text)
		}
		c.Addresses = append(c.Addresses, a.Unmap())
	}
	if mac != "" {
		m, err := network.ParseMAC(mac)
		if err != nil {
			return err
		}
		c.MAC = &m
	}
	return nil
}

func first(candidates ...string) string {
	for _, s := range candidates {
		if s != "" {
			return s
		}
	}
	return ""
}
