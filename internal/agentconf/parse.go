package agentconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/lease"
)

const (
	// minMTU is what every IPv4 host must be able to receive (RFC 791),
	// minMTU6 the least MTU of an IPv6 link (RFC 8200), and maxMTU the
	// longest IP packet without jumbograms.
	minMTU, minMTU6, maxMTU = 576, 1280, 65535
	// maxInterfaceLen is IFNAMSIZ less the terminating zero.
	maxInterfaceLen = 15
)

// Load reads the file at path, or the one at DefaultPath where path is empty.
// Without a file at DefaultPath the defaults serve; any other file has to be
// there. Errors name the file.
func Load(path string) (Config, error) {
	if path == "" {
		path = DefaultPath
	}
	return load(path, path == DefaultPath)
}

func load(path string, optional bool) (Config, error) {
	data, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return Parse([]byte("{}"))
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the agent's configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("agent's configuration %s: %w", path, err)
	}
	c.Path = path
	return c, nil
}

// file is agent.json as it is written.
type file struct {
	Master                   masters
	IP, Interface, IPCIDR    string
	Network                  lease.NetworkConfig
	VTEPTxOffload            bool
	VXLANFilter              bool
	StateDir, RunDir         string
	CNIDir, CNIDataDir       string
	MaxConfigurationAttempts int
	CAFile, CertFile         string
	KeyFile                  string
}

// field is a name in agent.json, and where its value goes.
type field struct {
	name  string
	value any
}

func (f *file) fields() []field {
	return []field{
		{"master", &f.Master},
		{"ip", &f.IP},
		{"interface", &f.Interface},
		{"ip_cidr", &f.IPCIDR},
		{"network_config", &f.Network},
		{"vtep_tx_offload", &f.VTEPTxOffload},
		{"vxlan_filter", &f.VXLANFilter},
		{"state_dir", &f.StateDir},
		{"run_dir", &f.RunDir},
		{"cni_dir", &f.CNIDir},
		{"cni_data_dir", &f.CNIDataDir},
		{"max_configuration_attempts", &f.MaxConfigurationAttempts},
		{"ca_file", &f.CAFile},
		{"cert_file", &f.CertFile},
		{"key_file", &f.KeyFile},
	}
}

// Parse reads an agent.json and fills in the defaults. Unknown and repeated
// fields are errors.
func Parse(data []byte) (Config, error) {
	f := file{Network: lease.DefaultNetworkConfig(), VTEPTxOffload: true, VXLANFilter: true}
	if err := f.read(data); err != nil {
		return Config{}, err
	}
	return f.config()
}

// read goes through the object field by field, for encoding/json alone would
// take the last of a repeated field, and a name in any case.
func (f *file) read(data []byte) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("the file is empty; {} stands for the defaults")
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(data, new(json.RawMessage)); errors.As(err, &syntax) {
		return fmt.Errorf("line %d: this is not JSON: %w", lineAt(data, syntax.Offset), err)
	} else if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return errors.New("want an object in braces")
	}
	fields := f.fields()
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		line := lineAt(data, dec.InputOffset())
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		switch {
		case i < 0:
			return fmt.Errorf("line %d: %w", line, unknown(name, fields))
		case seen[name]:
			return fmt.Errorf("line %d: %s: is given twice", line, name)
		}
		seen[name] = true
		if err := dec.Decode(fields[i].value); err != nil {
			return fmt.Errorf("line %d: %s: %w", line, name, explain(err))
		}
	}
	return nil
}

// lineAt is the line, from 1, of the last of the first offset bytes.
func lineAt(data []byte, offset int64) int {
	end := min(max(offset-1, 0), int64(len(data)))
	return 1 + bytes.Count(data[:end], []byte("\n"))
}

func unknown(name string, fields []field) error {
	if slices.Contains([]string{"network", "overlays", "vtep_subnet", "dcos_overlay_network"}, name) {
		return fmt.Errorf("%s: this is the network's configuration, which the coordinator takes with --config; an agent's has %s", name, names(fields))
	}
	return fmt.Errorf("%s: there is no such field; there are %s", name, names(fields))
}

func names(fields []field) string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = f.name
	}
	return strings.Join(all, ", ")
}

// explain puts a type error of encoding/json into words that fit a person who
// does not know Go.
func explain(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		in := ""
		if wrong.Field != "" {
			in = wrong.Field + ": "
		}
		return fmt.Errorf("%swant %s, have %s", in, kind(wrong.Type), wrong.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("there is no field %s in it; there are allocate_subnet, mesos_bridge, docker_bridge, overlay_mtu, enable_ipv6", name)
	}
	return err
}

func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	default:
		return "an object"
	}
}

// config checks f, and fills in the defaults.
func (f *file) config() (Config, error) {
	c := Config{
		Network:                  f.Network,
		VTEPTxOffload:            f.VTEPTxOffload,
		VXLANFilter:              f.VXLANFilter,
		MaxConfigurationAttempts: f.MaxConfigurationAttempts,
	}
	if err := c.setMaster(f.Master); err != nil {
		return Config{}, err
	}
	if err := c.setUnderlay(f.IP, f.Interface, f.IPCIDR); err != nil {
		return Config{}, err
	}
	if err := checkMTU(f.Network); err != nil {
		return Config{}, err
	}
	if f.MaxConfigurationAttempts < 0 {
		return Config{}, fmt.Errorf("max_configuration_attempts: %d is negative", f.MaxConfigurationAttempts)
	}
	paths := []struct {
		name       string
		set        *string
		value, def string
	}{
		{"state_dir", &c.StateDir, f.StateDir, DefaultStateDir},
		{"run_dir", &c.RunDir, f.RunDir, DefaultRunDir},
		{"cni_dir", &c.CNIDir, f.CNIDir, ""},
		{"cni_data_dir", &c.CNIDataDir, f.CNIDataDir, ""},
		{"ca_file", &c.CAFile, f.CAFile, ""},
		{"cert_file", &c.CertFile, f.CertFile, ""},
		{"key_file", &c.KeyFile, f.KeyFile, ""},
	}
	for _, p := range paths {
		switch {
		case p.value == "":
			*p.set = p.def
		case !filepath.IsAbs(p.value):
			return Config{}, fmt.Errorf("%s: %q is not an absolute path", p.name, p.value)
		default:
			*p.set = filepath.Clean(p.value)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return Config{}, errors.New("cert_file and key_file: one is of no use without the other; set both or none")
	}
	return c, nil
}

// setUnderlay takes over the three fields that choose the underlay's address.
func (c *Config) setUnderlay(ip, iface, cidr string) error {
	set := 0
	if ip != "" {
		set++
		addr, err := netip.ParseAddr(ip)
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("ip: %q is not a host's address such as 10.10.0.117", ip)
		}
		c.IP = addr.Unmap()
	}
	if iface != "" {
		set++
		if len(iface) > maxInterfaceLen || strings.ContainsAny(iface, "/ \t\n") {
			return fmt.Errorf("interface: %q is not the name of a network device such as eth0", iface)
		}
		c.Interface = iface
	}
	if cidr != "" {
		set++
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			return fmt.Errorf("ip_cidr: %q is not an address range such as 10.10.0.0/16", cidr)
		}
		c.IPCIDR = p.Masked()
	}
	if set > 1 {
		return errors.New("ip, interface and ip_cidr: at most one of them may be set, for each chooses the underlay's address")
	}
	return nil
}

func checkMTU(n lease.NetworkConfig) error {
	switch mtu := n.OverlayMTU; {
	case mtu == 0:
	case mtu < minMTU:
		return fmt.Errorf("network_config.overlay_mtu: %d is less than %d, which every IPv4 host takes; leave it out to have it from the underlay", mtu, minMTU)
	case mtu < minMTU6 && n.EnableIPv6:
		return fmt.Errorf("network_config.overlay_mtu: %d is less than %d, which IPv6 needs; make it larger, or set enable_ipv6 to false", mtu, minMTU6)
	case mtu > maxMTU:
		return fmt.Errorf("network_config.overlay_mtu: %d is more than %d, the longest IP packet; leave it out to have it from the underlay", mtu, maxMTU)
	}
	return nil
}
