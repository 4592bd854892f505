// Package cniconf is the configuration that the CNI plugins get on standard
// input, with what was asked for this one container: by Mesos's NetworkInfo,
// by runtimeConfig or by CNI_ARGS.
package cniconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// TypeIPAM is our IPAM plugin, which dcos-overlay runs in its own process.
	TypeIPAM = "dcos-ipam"
	// TypeHostLocal is the stock IPAM plugin that gets the leased ranges.
	TypeHostLocal = "host-local"
	// DefaultVersion is the result's shape where the configuration names
	// none: Mesos's isolator knows no later one.
	DefaultVersion = "0.2.0"
)

// Conf is one call's configuration.
type Conf struct {
	CNIVersion string
	// Name is the network's, Overlay what the container shall be on.
	Name, Overlay string
	// AgentConfig is the path of the agent's file; empty means the default.
	AgentConfig string
	IPAMType    string
	// MapPorts false leaves port mappings to another program.
	MapPorts bool
	// Ports are to be mapped from the host; none where MapPorts is false.
	Ports []Port

	// Routes are the container's, in either family, by default to everywhere.
	Routes []netip.Prefix
	DNS    types.DNS
	// Addresses were asked for by the runtime; empty means any free ones.
	Addresses []netip.Addr
	// MesosAddresses are Addresses if only Mesos's NetworkInfo has them, which
	// no other plugin reads.
	MesosAddresses []netip.Addr
	// Labels are the container's, each "key" or "key=value".
	Labels []string
	// MAC was asked for by the runtime; nil means one made of the address.
	MAC *network.MAC

	// Stdin is the configuration as it came.
	Stdin []byte
}

// identity is what tells an attachment's overlay and the programs that had a
// part in it; all other fields may be wrong.
type identity struct {
	CNIVersion  string `json:"cniVersion"`
	Name        string `json:"name"`
	Overlay     string `json:"overlay"`
	AgentConfig string `json:"agentConfig"`
	MapPorts    *bool  `json:"mapPorts"`
	IPAM        struct {
		Type        string `json:"type"`
		Overlay     string `json:"overlay"`
		AgentConfig string `json:"agentConfig"`
	} `json:"ipam"`
}

// wishes are how a container wants to be attached; fields that are not ours
// are other programs' business.
type wishes struct {
	// Plugins are of a list, which is for runtimes.
	Plugins json.RawMessage `json:"plugins"`
	IPAM    struct {
		Routes []struct {
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
				PortMappings []mesosPort `json:"port_mappings"`
				Labels       labels      `json:"labels"`
			} `json:"network_info"`
		} `json:"org.apache.mesos"`
		CNI struct {
			IPs    []string `json:"ips"`
			Labels labels   `json:"labels"`
		} `json:"cni"`
	} `json:"args"`
	RuntimeConfig struct {
		IPs   []string `json:"ips"`
		MAC   string   `json:"mac"`
		Ports []Port   `json:"portMappings"`
	} `json:"runtimeConfig"`
}

// Parse reads the configuration on standard input and CNI_ARGS. Its errors are
// *types.Error with the code that the CNI specification has for them.
func Parse(stdin []byte, cniArgs string) (*Conf, error) {
	c, err := Identify(stdin)
	if err != nil {
		return nil, err
	}
	var w wishes
	if err := w.read(stdin); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read the CNI configuration: "+err.Error(), "")
	}
	if errs := append(c.checkIPAM(), c.fill(&w, cniArgs)...); len(errs) > 0 {
		return nil, invalid(c.Name, errs[0])
	}
	return c, nil
}

// Check lists all that Parse would refuse the configuration for, one by one;
// where an error is about one field, its text begins with the field's path.
func Check(stdin []byte) []error {
	var w wishes
	var errs []error
	for _, part := range []any{new(identity), &w} {
		var wrong *json.UnmarshalTypeError
		if err := json.Unmarshal(stdin, part); errors.As(err, &wrong) {
			errs = append(errs, fmt.Errorf("%s: a %s is not what belongs here", wrong.Field, wrong.Value))
		} else if err != nil {
			return []error{err}
		}
	}
	if len(errs) > 0 {
		return errs
	}
	c, err := Identify(stdin)
	var whole *types.Error
	if errors.As(err, &whole) {
		_, message, _ := strings.Cut(whole.Msg, ": ")
		return []error{errors.New(message)}
	}
	return append(c.checkIPAM(), c.fill(&w, "")...)
}

// Identify reads as much as is needed to find what an ADD has made: DEL must
// not fail for a mistake that kept the ADD from doing anything. Ports are read
// if they can be. Its errors are as Parse's.
func Identify(stdin []byte) (*Conf, error) {
	c, err := identify(stdin)
	if err != nil {
		return nil, err
	}
	var w wishes
	if w.read(stdin) == nil {
		c.Ports, _ = c.ports(&w)
	}
	return c, nil
}

// identify is Identify without ports.
func identify(stdin []byte) (*Conf, error) {
	var r identity
	if err := r.read(stdin); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read the CNI configuration: "+err.Error(), "")
	}
	c := &Conf{
		CNIVersion:  first(r.CNIVersion, DefaultVersion),
		Name:        r.Name,
		Overlay:     first(r.IPAM.Overlay, r.Overlay, r.Name),
		AgentConfig: first(r.IPAM.AgentConfig, r.AgentConfig),
		IPAMType:    first(r.IPAM.Type, TypeIPAM),
		MapPorts:    r.MapPorts == nil || *r.MapPorts,
		Stdin:       stdin,
	}
	if c.Overlay == "" {
		return nil, invalid(r.Name, errors.New("it names no overlay: set \"name\" or \"overlay\""))
	}
	// The name becomes part of device names and paths, and so does a type.
	if len(c.Overlay) > network.MaxNameLen || strings.ContainsAny(c.Overlay, "/ \t\n\x00") || c.Overlay == "." || c.Overlay == ".." {
		return nil, invalid(r.Name, fmt.Errorf("%q can't be an overlay: names have at most %d characters, and no slash or blank; where \"name\" must be another, set \"overlay\"", c.Overlay, network.MaxNameLen))
	}
	if strings.ContainsAny(c.IPAMType, "/\x00") {
		return nil, invalid(r.Name, fmt.Errorf("ipam.type %q has a slash: it is the name of a program in CNI_PATH", c.IPAMType))
	}
	return c, nil
}

func invalid(network string, err error) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "CNI configuration of network "+network+": "+err.Error(), "")
}

// checkIPAM refuses what would say otherwise than the lease.
func (c *Conf) checkIPAM() (errs []error) {
	if c.IPAMType != TypeIPAM && c.IPAMType != TypeHostLocal {
		return nil
	}
	has, err := ipamFields(c.Stdin)
	if err != nil {
		return []error{err}
	}
	for _, name := range []string{"ranges", "subnet", "rangeStart", "rangeEnd", "gateway"} {
		if has(name) {
			errs = append(errs, fmt.Errorf("ipam.%s: addresses are of the subnet that this agent leased of overlay %s: remove it, or, to pick one address, ask for it (\"ips\", CNI_ARGS IP=)", name, c.Overlay))
		}
	}
	if has("dataDir") {
		errs = append(errs, errors.New("ipam.dataDir: the place of reservations is \"cni_data_dir\" in the agent's file: remove it"))
	}
	if has("resolvConf") && c.IPAMType == TypeIPAM {
		errs = append(errs, errors.New("ipam.resolvConf is not read: set \"dns\" instead"))
	}
	return errs
}

func (c *Conf) fill(w *wishes, cniArgs string) (errs []error) {
	if w.Plugins != nil {
		errs = append(errs, errors.New("plugins: this is a list of configurations, which a runtime takes apart, such as cnitool: a plugin gets one of them, with the list's name and cniVersion"))
	}
	c.DNS = w.DNS
	for _, route := range w.IPAM.Routes {
		p, err := netip.ParsePrefix(route.Dst)
		if err != nil {
			errs = append(errs, fmt.Errorf("ipam.routes: %q is no subnet such as 0.0.0.0/0", route.Dst))
			continue
		}
		c.Routes = append(c.Routes, p.Masked())
	}
	if len(w.IPAM.Routes) == 0 {
		c.Routes = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	asked := slices.Concat(w.RuntimeConfig.IPs, w.Args.CNI.IPs)
	mac := w.RuntimeConfig.MAC
	for _, pair := range strings.Split(cniArgs, ";") {
		switch key, value, _ := strings.Cut(pair, "="); key {
		case "IP":
			asked = append(asked, strings.Split(value, ",")...)
		case "MAC":
			mac = first(mac, value)
		case "LABEL":
			c.Labels = append(c.Labels, strings.Split(value, ",")...)
		}
	}
	c.Labels = slices.Concat(c.Labels, w.Args.Mesos.NetworkInfo.Labels, w.Args.CNI.Labels)
	onlyMesos := len(asked) == 0
	for _, a := range w.Args.Mesos.NetworkInfo.IPAddresses {
		if a.IPAddress != "" {
			asked = append(asked, a.IPAddress)
		}
	}
	for _, text := range asked {
		bare, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(strings.TrimSpace(bare))
		if err != nil || a.Zone() != "" {
			errs = append(errs, fmt.Errorf("the address %q that was asked for is none", text))
			continue
		}
		// A runtime may say the same in two places.
		if a = a.Unmap(); !slices.Contains(c.Addresses, a) {
			c.Addresses = append(c.Addresses, a)
		}
	}
	if onlyMesos {
		c.MesosAddresses = c.Addresses
	}
	if mac != "" {
		m, err := network.ParseMAC(mac)
		// The lowest bit of the first byte marks a group (IEEE 802).
		if err == nil && (m[0]&1 != 0 || m == (network.MAC{})) {
			err = fmt.Errorf("%s can't be the MAC of an interface: it is a group's, or zero", m)
		}
		if err != nil {
			errs = append(errs, err)
		}
		c.MAC = &m
	}
	var err error
	if c.Ports, err = c.ports(w); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func first(candidates ...string) string {
	for _, s := range candidates {
		if s != "" {
			return s
		}
	}
	return ""
}
