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
	f := newFile()
	if !f.readPlain(data) {
		if err := f.read(data, func(p place, err error) error { return fmt.Errorf("line %d: %s: %w", p.line, p.name, err) }); err != nil {
			return Config{}, err
		}
	}
	var c Config
	for _, r := range f.rules() {
		if errs := r.check(&c); len(errs) > 0 {
			return Config{}, errs[0]
		}
	}
	return c, nil
}

func newFile() *file {
	return &file{Network: lease.DefaultNetworkConfig(), VTEPTxOffload: true, VXLANFilter: true}
}

// place is where in the file a field's name is, and its value.
type place struct {
	name   string
	line   int
	offset int64
	value  json.RawMessage
}

// read goes through the object field by field, for encoding/json alone would
// take the last of a repeated field, and a name in any case. What is wrong with
// a field is wrong's to judge: an error of it ends the reading.
func (f *file) read(data []byte, wrong func(place, error) error) error {
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
	return readFields(dec, data, f.fields(), wrong)
}

// readFields reads the fields of an object whose brace has been read.
func readFields(dec *json.Decoder, data []byte, fields []field, wrong func(place, error) error) error {
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		at := place{offset: dec.InputOffset()}
		at.name, _ = token.(string)
		at.line = lineAt(data, at.offset)
		if err := dec.Decode(&at.value); err != nil {
			return err
		}
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == at.name })
		switch {
		case i < 0:
			err = unknown(at.name, fields)
		case seen[at.name]:
			err = errors.New("is given twice")
		default:
			err = explain(json.Unmarshal(at.value, fields[i].value))
		}
		seen[at.name] = true
		if err != nil {
			if err := wrong(at, err); err != nil {
				return err
			}
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
		return fmt.Errorf("this is the network's configuration, which the coordinator takes with --config; an agent's has %s", names(fields))
	}
	return fmt.Errorf("there is no such field; there are %s", names(fields))
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
	if err == nil {
		return nil
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		in := ""
		if wrong.Field != "" {
			in = wrong.Field + ": "
		}
		return fmt.Errorf("%swant %s, have %s", in, kind(wrong.Type), wrong.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("there is no field %s in it; there are allocate_subnet, mesos_bridge, docker_bridge, overlay_mtu, enable_ipv6, keep_halves", name)
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

// rule checks some fields together, and fills in their part of the Config.
type rule struct {
	fields []string
	check  func(*Config) []error
}

// rules are all of them, in the order in which they are told.
func (f *file) rules() []rule {
	one := func(err error) []error {
		if err == nil {
			return nil
		}
		return []error{err}
	}
	out := []rule{
		{[]string{"master"}, func(c *Config) []error { return c.setMaster(f.Master) }},
		{[]string{"ip", "interface", "ip_cidr"}, func(c *Config) []error { return c.setUnderlay(f.IP, f.Interface, f.IPCIDR) }},
		{[]string{"network_config"}, func(c *Config) []error {
			c.Network = f.Network
			return one(checkMTU(f.Network))
		}},
		{[]string{"vtep_tx_offload", "vxlan_filter"}, func(c *Config) []error {
			c.VTEPTxOffload, c.VXLANFilter = f.VTEPTxOffload, f.VXLANFilter
			return nil
		}},
		{[]string{"max_configuration_attempts"}, func(c *Config) []error {
			if c.MaxConfigurationAttempts = f.MaxConfigurationAttempts; c.MaxConfigurationAttempts < 0 {
				return one(fmt.Errorf("max_configuration_attempts: %d is negative", c.MaxConfigurationAttempts))
			}
			return nil
		}},
	}
	path := func(name string, set func(*Config) *string, value, def string) {
		out = append(out, rule{[]string{name}, func(c *Config) []error {
			switch {
			case value == "":
				*set(c) = def
			case !filepath.IsAbs(value):
				return one(fmt.Errorf("%s: %q is not an absolute path", name, value))
			default:
				*set(c) = filepath.Clean(value)
			}
			return nil
		}})
	}
	path("state_dir", func(c *Config) *string { return &c.StateDir }, f.StateDir, DefaultStateDir)
	path("run_dir", func(c *Config) *string { return &c.RunDir }, f.RunDir, DefaultRunDir)
	path("cni_dir", func(c *Config) *string { return &c.CNIDir }, f.CNIDir, "")
	path("cni_data_dir", func(c *Config) *string { return &c.CNIDataDir }, f.CNIDataDir, "")
	path("ca_file", func(c *Config) *string { return &c.CAFile }, f.CAFile, "")
	path("cert_file", func(c *Config) *string { return &c.CertFile }, f.CertFile, "")
	path("key_file", func(c *Config) *string { return &c.KeyFile }, f.KeyFile, "")
	return append(out, rule{[]string{"cert_file", "key_file"}, func(*Config) []error {
		if (f.CertFile == "") != (f.KeyFile == "") {
			return one(errors.New("cert_file and key_file: one is of no use without the other; set both or none"))
		}
		return nil
	}})
}

// setUnderlay takes over the three fields that choose the underlay's address.
func (c *Config) setUnderlay(ip, iface, cidr string) (errs []error) {
	set := 0
	if ip != "" {
		set++
		addr, err := netip.ParseAddr(ip)
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			errs = append(errs, fmt.Errorf("ip: %q is not a host's address such as 10.10.0.117", ip))
		}
		c.IP = addr.Unmap()
	}
	if iface != "" {
		set++
		if len(iface) > maxInterfaceLen || strings.ContainsAny(iface, "/ \t\n") {
			errs = append(errs, fmt.Errorf("interface: %q is not the name of a network device such as eth0", iface))
		}
		c.Interface = iface
	}
	if cidr != "" {
		set++
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			errs = append(errs, fmt.Errorf("ip_cidr: %q is not an address range such as 10.10.0.0/16", cidr))
		}
		c.IPCIDR = p.Masked()
	}
	if set > 1 {
		errs = append(errs, errors.New("ip, interface and ip_cidr: at most one of them may be set, for each chooses the underlay's address"))
	}
	return errs
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
