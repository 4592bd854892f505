package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types020 "github.com/containernetworking/cni/pkg/types/020"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// manyOverlays has an overlay of each kind of addresses, and a second one of
// IPv4.
const manyOverlays = `{
  "vtep_subnet": "44.128.0.0/20", "vtep_subnet6": "fd01:a::/64", "vtep_mac_oui": "70:B3:D5:00:00:00",
  "overlays": [
    {"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 24},
    {"name": "dcos6", "subnet6": "fd01:b::/64", "prefix6": 80},
    {"name": "dual", "subnet": "10.64.0.0/16", "prefix": 24, "subnet6": "fd01:d::/64", "prefix6": 80},
    {"name": "alt", "subnet": "10.65.0.0/16", "prefix": 24},
    {"name": "tiny", "subnet": "10.66.0.0/24", "prefix": 28, "max_subnets": 1},
    {"name": "off", "subnet": "10.67.0.0/24", "prefix": 28, "enabled": false}
  ]}`

// newCNIScene is a coordinator with manyOverlays and two agents without
// companion and Docker.
func newCNIScene(t *testing.T) *scene.Scene {
	t.Helper()
	l, err := lab.New(lab.Options{Bin: bin})
	check(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &scene.Scene{Lab: l, Companions: map[string]*lab.Process{}}
	for name, h := range map[string]struct {
		host **lab.Host
		ip   string
	}{"master": {&s.Master, "172.17.0.2"}, "a": {&s.A, "172.17.0.4"}, "b": {&s.B, "172.17.0.3"}} {
		*h.host = must[*lab.Host](t)(l.AddHost(t.Context(), name, netip.MustParseAddr(h.ip)))
	}
	s.Coordinator = must[*lab.Process](t)(s.Master.StartCoordinator(t.Context(), lab.CoordinatorOptions{Config: []byte(manyOverlays)}))
	for _, h := range s.Agents() {
		configure(t, s, h, nil)
	}
	return s
}

// cniCall is one run of a plugin, as a runtime makes it.
type cniCall struct {
	// Plugin is dcos-overlay if it is empty, Ifname eth0, and Path the lab's
	// programs.
	Plugin, Verb, ID, Ifname, Netns, Args, Path string
	Conf                                        map[string]any
	// Under are the words of a command that runs the plugin, if any.
	Under []string
}

// answer is what a plugin has printed.
type answer struct {
	stdout []byte
	stderr string
	// failure is nil when the plugin succeeded.
	failure *types.Error
}

// plugins is the directory of the programs, as hosts see it.
func plugins(t *testing.T) string {
	t.Helper()
	return must[string](t)(filepath.EvalSymlinks(bin))
}

// run runs a plugin on a host. What the specification wants of every answer is
// checked here.
func (c cniCall) run(t *testing.T, h *lab.Host) answer {
	t.Helper()
	dir := plugins(t)
	for _, d := range []struct {
		field *string
		value string
	}{{&c.Plugin, "dcos-overlay"}, {&c.Ifname, "eth0"}, {&c.Path, dir}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	env := []string{"CNI_COMMAND=" + c.Verb, "CNI_PATH=" + c.Path, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if c.ID != "" {
		env = append(env, "CNI_CONTAINERID="+c.ID, "CNI_IFNAME="+c.Ifname)
	}
	if c.Netns != "" {
		env = append(env, "CNI_NETNS="+c.Netns)
	}
	if c.Args != "" {
		env = append(env, "CNI_ARGS="+c.Args)
	}
	stdin := must[[]byte](t)(json.Marshal(c.Conf))
	r := must[lab.Result](t)(h.Exec(t.Context(), lab.Command{Args: append(c.Under, filepath.Join(dir, c.Plugin)), Env: env, Stdin: stdin}))
	a := answer{stdout: []byte(r.Stdout), stderr: r.Stderr}
	switch {
	case r.Code == 0:
	case r.Code > 1:
		t.Fatalf("%s ends with %d: %s%s", c, r.Code, r.Stdout, r.Stderr)
	default:
		a.failure = &types.Error{}
		if err := strictly(a.stdout, a.failure); err != nil || a.failure.Msg == "" || strings.Contains(a.failure.Msg, "\n") {
			t.Fatalf("%s fails without an error of the specification (%v): %s%s", c, err, r.Stdout, r.Stderr)
		}
	}
	if r.Code == 0 && c.Verb != "ADD" && c.Verb != "VERSION" && len(bytes.TrimSpace(a.stdout)) > 0 {
		t.Errorf("%s prints %s", c, a.stdout)
	}
	return a
}

func (c cniCall) String() string {
	return fmt.Sprintf("%s %s of %s/%s on %v (%v)", c.Plugin, c.Verb, c.ID, c.Ifname, c.Conf["name"], c.Conf["cniVersion"])
}

// ok wants the plugin to succeed.
func (c cniCall) ok(t *testing.T, h *lab.Host) answer {
	t.Helper()
	a := c.run(t, h)
	if a.failure != nil {
		t.Fatalf("%s fails with %d: %s %s", c, a.failure.Code, a.failure.Msg, a.failure.Details)
	}
	return a
}

// fails wants the plugin to fail with a code, and a message with all words.
func (c cniCall) fails(t *testing.T, h *lab.Host, code uint, words ...string) {
	t.Helper()
	a := c.run(t, h)
	if a.failure == nil {
		t.Errorf("%s succeeds, and should fail with %d: %s", c, code, a.stdout)
		return
	}
	t.Logf("%s: %d %s", c, a.failure.Code, a.failure.Msg)
	if a.failure.Code != code {
		t.Errorf("%s fails with %d, not %d: %s", c, a.failure.Code, code, a.failure.Msg)
	}
	for _, w := range words {
		if !strings.Contains(a.failure.Msg, w) {
			t.Errorf("%s: %q is not in %q", c, w, a.failure.Msg)
		}
	}
}

// verb is c with another verb.
func (c cniCall) verb(verb string) cniCall {
	c.Verb = verb
	return c
}

// with is c with more in the configuration.
func (c cniCall) with(more map[string]any) cniCall {
	conf := maps.Clone(c.Conf)
	maps.Copy(conf, more)
	c.Conf = conf
	return c
}

// netConf is a configuration for an overlay; version may be empty.
func netConf(overlay, version string) map[string]any {
	conf := map[string]any{"name": overlay, "type": "dcos-overlay", "ipam": map[string]any{"type": "dcos-ipam"}}
	if version != "" {
		conf["cniVersion"] = version
	}
	return conf
}

// newNetns makes a network namespace on a host.
func newNetns(t *testing.T, h *lab.Host, name string) (path string) {
	t.Helper()
	_, err := h.Run(t.Context(), "sh", "-ec", `ip netns add "$0"; ip -n "$0" link set lo up`, name)
	check(t, err)
	return "/run/netns/" + name
}

// strictly decodes JSON that has no fields but v's.
func strictly(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return fmt.Errorf("there is more than one object")
	}
	return nil
}

// resultOf reads a result by libcni's own type for the version, and answers it
// in the newest one's words.
func resultOf(t *testing.T, data []byte, want string) *types100.Result {
	t.Helper()
	if want == "" {
		want = "0.2.0"
	}
	var r types.Result
	switch {
	case strings.HasPrefix(want, "0.1") || strings.HasPrefix(want, "0.2"):
		r = &types020.Result{}
	case strings.HasPrefix(want, "0."):
		r = &types040.Result{}
	default:
		r = &types100.Result{}
	}
	if err := strictly(data, r); err != nil {
		t.Fatalf("not a result of version %s: %v: %s", want, err, data)
	}
	var said struct{ CNIVersion string }
	if err := json.Unmarshal(data, &said); err != nil || said.CNIVersion != want {
		t.Errorf("the result is of version %q, not %q: %s", said.CNIVersion, want, data)
	}
	newest, err := types100.NewResultFromResult(r)
	if err != nil {
		t.Fatalf("convert the result %s: %v", data, err)
	}
	return newest
}

// addrsOf are the addresses in a result.
func addrsOf(r *types100.Result) (out []netip.Addr) {
	for _, ip := range r.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		out = append(out, a.Unmap())
	}
	return out
}

// reservedOn lists the addresses that are reserved on a host, in whichever
// place.
func reservedOn(t *testing.T, h *lab.Host) []string {
	t.Helper()
	out := must[string](t)(h.Run(t.Context(), "sh", "-c", `find -L /run/dcos-overlay/networks /run/dcos-overlay/stores /run/dcos -type f -name '[0-9a-f]*[.:]*' 2>/dev/null | sed 's|.*/||' | sort -u`))
	return strings.Fields(out)
}

// nothingOf is empty when no container has left anything on a host.
func nothingOf(t *testing.T, h *lab.Host) string {
	t.Helper()
	return must[string](t)(h.Run(t.Context(), "sh", "-c", `
		ip -o link | grep -oE 'dov[0-9a-f]+'
		iptables-save -t nat | grep -E 'CNI-DN-'; ip6tables-save -t nat | grep -E 'CNI-DN-'
		find -L /run/dcos-overlay/networks /run/dcos-overlay/stores /run/dcos -type f \( -name '[0-9a-f]*[.:]*' -o -path '*/.owners/*' -o -name .new \) 2>/dev/null
		true`))
}

// versions are those of the specification, and none.
var versions = []string{"", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// atLeast tells whether a configuration's version is want or later.
func atLeast(t *testing.T, v, want string) bool {
	t.Helper()
	if v == "" {
		v = "0.1.0"
	}
	return must[bool](t)(version.GreaterThanOrEqualTo(v, want))
}

// families has the overlays and how many addresses of IPv4 and IPv6 a
// container of each has.
var families = map[string][2]int{"dcos": {1, 0}, "dcos6": {0, 1}, "dual": {1, 1}}

// TestConformance drives the built plugins as black boxes through every verb
// in every version, on overlays of each kind of addresses.
func TestConformance(t *testing.T) {
	s := newCNIScene(t)
	for _, plugin := range []string{"dcos-overlay", "dcos-ipam"} {
		a := cniCall{Plugin: plugin, Verb: "VERSION", Conf: map[string]any{"cniVersion": "1.1.0"}}.ok(t, s.A)
		info, err := (&version.PluginDecoder{}).Decode(a.stdout)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(info.SupportedVersions(), versions[1:]) {
			t.Errorf("%s supports %q", plugin, info.SupportedVersions())
		}
		for _, v := range versions {
			for overlay, want := range families {
				conform(t, s.A, plugin, v, overlay, want)
			}
		}
	}
	if left := nothingOf(t, s.A); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

func conform(t *testing.T, h *lab.Host, plugin, v, overlay string, families [2]int) {
	t.Helper()
	id := strings.Trim(fmt.Sprintf("%s-%s-%s", plugin, overlay, strings.ReplaceAll(v, ".", "")), "-")
	call := cniCall{Plugin: plugin, Verb: "ADD", ID: id, Conf: netConf(overlay, v), Netns: newNetns(t, h, id)}
	call.Conf["dns"] = map[string]any{"nameservers": []string{"198.51.100.200"}, "search": []string{"marathon.mesos"}}
	if plugin == "dcos-ipam" {
		call.Conf["type"] = "bridge"
	}
	if atLeast(t, v, "1.1.0") {
		call.verb("STATUS").ok(t, h)
	} else {
		call.verb("STATUS").fails(t, h, types.ErrIncompatibleCNIVersion)
	}

	added := call.ok(t, h)
	result := resultOf(t, added.stdout, v)
	var has [2]int
	for _, ip := range result.IPs {
		i := 0
		if ip.Address.IP.To4() == nil {
			i = 1
		}
		has[i]++
		if ip.Gateway == nil || !ip.Address.Contains(ip.Gateway) {
			t.Errorf("%s: gateway %v of %v", call, ip.Gateway, ip.Address)
		}
	}
	if has != families || len(result.Routes) != has[0]+has[1] {
		t.Errorf("%s: %v addresses, %v routes: %s", call, has, result.Routes, added.stdout)
	}
	if len(result.DNS.Nameservers) != 1 || len(result.DNS.Search) != 1 {
		t.Errorf("%s: dns %v", call, result.DNS)
	}
	if plugin == "dcos-overlay" {
		checkInterfaces(t, h, call, result)
	} else if len(result.Interfaces) != 0 {
		t.Errorf("%s tells of interfaces: %s", call, added.stdout)
	}
	call.fails(t, h, 103, id)

	var prev any
	check(t, json.Unmarshal(added.stdout, &prev))
	again := call.with(map[string]any{"prevResult": prev})
	if atLeast(t, v, "0.4.0") {
		again.verb("CHECK").ok(t, h)
		other := again.verb("CHECK")
		other.ID = "nobody"
		other.fails(t, h, 105, "nobody")
	} else {
		again.verb("CHECK").fails(t, h, types.ErrIncompatibleCNIVersion)
	}

	key := []string{"cni.dev/valid-attachments", "cni.dev/attachments"}[has[1]]
	gc := call.verb("GC").with(map[string]any{key: []any{map[string]any{"containerID": id, "ifname": "eth0"}}})
	gc.ID, gc.Netns = "", ""
	if atLeast(t, v, "1.1.0") {
		gc.ok(t, h)
		again.verb("CHECK").ok(t, h)
		call.verb("GC").ok(t, h) // without list
		again.verb("CHECK").ok(t, h)
	} else {
		gc.fails(t, h, types.ErrIncompatibleCNIVersion)
	}

	for range 2 {
		again.verb("DEL").ok(t, h)
	}
	again.Netns = ""
	again.verb("DEL").ok(t, h)
	for _, a := range addrsOf(result) {
		if slices.Contains(reservedOn(t, h), a.String()) {
			t.Errorf("%s: %s is reserved after DEL", call, a)
		}
	}
}

// checkInterfaces compares what a result says of interfaces with what there
// is; results before 0.3.0 say nothing.
func checkInterfaces(t *testing.T, h *lab.Host, call cniCall, result *types100.Result) {
	t.Helper()
	var links []struct {
		Address  string
		MTU      int
		AddrInfo []struct{ Local string } `json:"addr_info"`
	}
	out := must[string](t)(h.Run(t.Context(), "ip", "-n", call.ID, "-j", "addr", "show", "dev", "eth0"))
	check(t, json.Unmarshal([]byte(out), &links))
	var there []string
	for _, a := range links[0].AddrInfo {
		there = append(there, a.Local)
	}
	for _, a := range addrsOf(result) {
		if !slices.Contains(there, a.String()) {
			t.Errorf("%s: the container has %q, and not %s", call, there, a)
		}
	}
	v, _ := call.Conf["cniVersion"].(string)
	if !atLeast(t, v, "0.3.0") {
		return
	}
	if len(result.Interfaces) != 3 {
		t.Fatalf("%s: %d interfaces", call, len(result.Interfaces))
	}
	in := result.Interfaces[2]
	if in.Name != "eth0" || in.Sandbox != call.Netns || in.Mac != links[0].Address || atLeast(t, v, "1.1.0") && in.Mtu != links[0].MTU {
		t.Errorf("%s: the interface is %+v, and not %+v", call, in, links[0])
	}
	for _, host := range result.Interfaces[:2] {
		if _, err := h.Run(t.Context(), "ip", "link", "show", "dev", host.Name); err != nil || host.Sandbox != "" {
			t.Errorf("%s: %+v: %v", call, host, err)
		}
	}
	for _, ip := range result.IPs {
		if ip.Interface == nil || *ip.Interface != 2 {
			t.Errorf("%s: %v is not of interface 2", call, ip)
		}
	}
}

// TestConfigurationsThatAreRefused come with the field, and what to do.
func TestConfigurationsThatAreRefused(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	netns := newNetns(t, h, "c1")
	base := cniCall{Verb: "ADD", ID: "c1", Netns: netns, Conf: netConf("dcos", "1.0.0")}
	port := []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}
	for name, tt := range map[string]struct {
		change map[string]any
		netns  string
		path   string
		code   uint
		says   []string
	}{
		"ranges":                   {change: map[string]any{"ipam": map[string]any{"type": "dcos-ipam", "ranges": []any{}}}, code: 7, says: []string{"ipam.ranges", "leased"}},
		"subnet":                   {change: map[string]any{"ipam": map[string]any{"type": "dcos-ipam", "subnet": "10.0.0.0/24"}}, code: 7, says: []string{"ipam.subnet"}},
		"a list":                   {change: map[string]any{"plugins": []any{netConf("dcos", "")}}, code: 7, says: []string{"plugins", "cnitool"}},
		"version":                  {change: map[string]any{"cniVersion": "9.9.9"}, code: 1},
		"no portmap":               {change: map[string]any{"runtimeConfig": map[string]any{"portMappings": port}}, path: "/nowhere:/opt/none", code: 106, says: []string{"portmap", "/nowhere:/opt/none", "mapPorts"}},
		"no IPAM plugin":           {change: map[string]any{"ipam": map[string]any{"type": "nosuch"}}, code: 7, says: []string{"nosuch", "CNI_PATH", "dcos-ipam"}},
		"no namespace":             {netns: "/run/netns/none", code: 8, says: []string{"/run/netns/none", "the runtime"}},
		"no namespace, but a file": {netns: "/etc/hostname", code: 8, says: []string{"/etc/hostname"}},
		"the host's own":           {netns: "/proc/1/ns/net", code: 8, says: []string{"the host's own"}},
		"a disabled one":           {change: map[string]any{"name": "off"}, code: 102, says: []string{"off"}},
		"prevResult":               {change: map[string]any{"prevResult": 7}, code: 6},
		"port":                     {change: map[string]any{"runtimeConfig": map[string]any{"portMappings": []any{map[string]any{"hostPort": 0, "containerPort": 80}}}}, code: 7, says: []string{"0 to 80/tcp"}},
		"network's own":            {change: map[string]any{"runtimeConfig": map[string]any{"ips": []string{"9.0.0.0"}}}, code: 104, says: []string{"network address"}},
		"unknown family":           {change: map[string]any{"runtimeConfig": map[string]any{"ips": []string{"fd01:b::5"}}}, code: 104, says: []string{"fd01:b::5"}},
		"group's MAC":              {change: map[string]any{"runtimeConfig": map[string]any{"mac": "01:00:5e:00:00:01"}}, code: 7, says: []string{"ADD: ", "01:00:5e:00:00:01"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := base.with(tt.change)
			if tt.netns != "" {
				c.Netns = tt.netns
			}
			c.Path = tt.path
			c.fails(t, h, tt.code, tt.says...)
			if left := nothingOf(t, h); left != "" {
				t.Errorf("left behind:\n%s", left)
			}
			if tt.code != types.ErrIncompatibleCNIVersion {
				c.Netns = ""
				c.verb("DEL").ok(t, h)
			}
		})
	}
}

// prevOf is an answer as the prevResult of a later call.
func prevOf(t *testing.T, a answer) (prev any) {
	t.Helper()
	check(t, json.Unmarshal(a.stdout, &prev))
	return prev
}
