package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// portMapper does what mesos-cni-port-mapper does, in its order and with its
// commands: src/slave/containerizer/mesos/isolators/network/cni/plugins/
// port_mapper/port_mapper.cpp in Mesos 1.11.
type portMapper struct {
	host  *lab.Host
	id    string
	netns string
	// conf is the port mapper's own configuration, with what Mesos adds.
	conf map[string]any
}

// delegate is PortMapper::delegate: the plugin gets CNI_ARGS only if the port
// mapper did, PATH, and as configuration the object "delegate" with "name" and
// "args" of the outer one, from a file.
func (m portMapper) delegate(t *testing.T, verb string) lab.Result {
	t.Helper()
	inner := map[string]any{}
	own, _ := m.conf["delegate"].(map[string]any)
	for k, v := range own {
		inner[k] = v
	}
	inner["name"], inner["args"] = m.conf["name"], m.conf["args"]
	dir := plugins(t)
	env := []string{
		"CNI_COMMAND=" + verb, "CNI_IFNAME=eth0", "CNI_PATH=" + dir, "CNI_CONTAINERID=" + m.id,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	if m.netns != "" {
		env = append(env, "CNI_NETNS="+m.netns)
	}
	return must[lab.Result](t)(m.host.Exec(t.Context(), lab.Command{
		Args:  []string{filepath.Join(dir, fmt.Sprint(inner["type"]))},
		Env:   env,
		Stdin: must[[]byte](t)(json.Marshal(inner)),
	}))
}

// networkInfo is spec::NetworkInfo of spec.proto, which both the port mapper
// and the isolator parse a result as. Fields that it has not are dropped.
type networkInfo struct {
	IP4 *ipConfig  `json:"ip4,omitempty"`
	IP6 *ipConfig  `json:"ip6,omitempty"`
	DNS *types.DNS `json:"dns,omitempty"`
}

type ipConfig struct {
	IP      string `json:"ip"`
	Gateway string `json:"gateway,omitempty"`
	Routes  []struct {
		Dst string `json:"dst"`
		GW  string `json:"gw,omitempty"`
	} `json:"routes,omitempty"`
}

// add is handleAddCommand: it answers the text of the failure, or what Mesos
// gets to read.
func (m portMapper) add(t *testing.T) (result networkInfo, failure string) {
	t.Helper()
	r := m.delegate(t, "ADD")
	if r.Code != 0 {
		return result, "Could not attach/detach container: " + r.Stdout
	}
	if err := json.Unmarshal([]byte(r.Stdout), &result); err != nil {
		return result, "Failed to parse the output: " + err.Error()
	}
	for _, c := range []*ipConfig{result.IP4, result.IP6} {
		// "required" in spec.proto.
		if c != nil && c.IP == "" {
			return result, "Protobuf parse failed: ip is missing"
		}
	}
	if result.IP4 == nil {
		return result, "did not return an IPv4 address"
	}
	ip, err := netip.ParsePrefix(result.IP4.IP)
	if err != nil {
		return result, err.Error()
	}
	args, _ := m.conf["args"].(map[string]any)
	mesos, _ := args["org.apache.mesos"].(map[string]any)
	info, _ := mesos["network_info"].(map[string]any)
	mappings, _ := info["port_mappings"].([]any)
	for _, v := range mappings {
		p, _ := v.(map[string]any)
		protocol := "tcp"
		if given, ok := p["protocol"].(string); ok {
			protocol = strings.ToLower(given)
		}
		// The last of excludeDevices is the one that counts there.
		rule := fmt.Sprintf(`%[1]s ! -i m-dcos  -p %[2]s -m %[2]s --dport %[3]v -j DNAT --to-destination %[4]s:%[5]v -m comment --comment "container_id: %[6]s"`,
			m.conf["chain"], protocol, p["host_port"], ip.Addr(), p["container_port"], m.id)
		script := fmt.Sprintf(`
			iptables -w -n -t nat --list %[1]s
			if [ $? -ne 0 ]; then
				(iptables -w -t nat -N %[1]s || exit 1)
				(iptables -w -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j %[1]s || exit 1)
				(iptables -w -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j %[1]s || exit 1)
			fi
			(iptables -w -t nat -C %[2]s || iptables -w -t nat -A %[2]s)`, m.conf["chain"], rule)
		if _, err := m.host.Run(t.Context(), "sh", "-c", script); err != nil {
			return result, "Failed to add DNAT rule with tag: " + err.Error()
		}
	}
	return result, ""
}

// del is handleDelCommand: first the rules, then the delegate.
func (m portMapper) del(t *testing.T) lab.Result {
	t.Helper()
	_, err := m.host.Run(t.Context(), "sh", "-ec", fmt.Sprintf(`
		iptables -w -t nat -S %[1]s | sed -n "/container_id: %[2]s/ s/-A/iptables -w -t nat -D/p" >/tmp/rules
		sh /tmp/rules; rm /tmp/rules`, m.conf["chain"], m.id))
	check(t, err)
	return m.delegate(t, "DEL")
}

// mapped is a container that wants two ports on an overlay, as a DC/OS
// operator configures the port mapper.
func mapped(t *testing.T, h *lab.Host, id, overlay string, port int) portMapper {
	t.Helper()
	info := mesosPorts(port)
	info["name"] = overlay
	return portMapper{host: h, id: id, netns: newNetns(t, h, id), conf: map[string]any{
		"name": overlay, "type": "mesos-cni-port-mapper", "chain": "MESOS-TEST", "excludeDevices": []string{"m-dcos"},
		"delegate": map[string]any{"type": "dcos-overlay", "ipam": map[string]any{"type": "dcos-ipam"}, "mapPorts": false},
		"args":     map[string]any{"org.apache.mesos": map[string]any{"network_info": info}},
	}}
}

// wrapped has the port mapper attach a container, lead ports to it, and detach
// it without a namespace.
func wrapped(t *testing.T, s *scene.Scene) {
	ctx := t.Context()
	h := s.A
	m := mapped(t, h, "wrapped", "dcos", 31700)
	result, failure := m.add(t)
	if failure != "" || result.IP4.Gateway == "" || len(result.IP4.Routes) == 0 || result.IP6 != nil {
		t.Fatalf("%s: %+v", failure, result)
	}
	server := must[*lab.Process](t)(h.Start(ctx, "serve-wrapped", "ip", "netns", "exec", "wrapped", "probe", "serve", fmt.Sprintf(":%d", scene.Port)))
	check(t, server.WaitLog(ctx, "serving\n"))
	reachPorts(t, []way{
		{"outside", &s.Lab.Outside.Place, h.Addr, lab.Router4},
		{"another host", &s.B.Place, h.Addr, s.B.Addr},
		{"the host", &h.Place, h.Addr, netip.Addr{}},
	}, 31700)
	if out := must[string](t)(h.Run(ctx, "iptables-save", "-t", "nat")); strings.Contains(out, "CNI-DN") {
		t.Errorf("the wrapped plugin maps the ports as well:\n%s", out)
	}
	m.netns = ""
	if r := m.del(t); r.Code != 0 {
		t.Errorf("DEL fails: %s%s", r.Stdout, r.Stderr)
	}
}

// wrappedIPv6: the port mapper fails for want of ip4, and the DEL that follows
// leaves nothing.
func wrappedIPv6(t *testing.T, s *scene.Scene) {
	m := mapped(t, s.A, "wrapped6", "dcos6", 31710)
	if result, failure := m.add(t); !strings.Contains(failure, "did not return an IPv4 address") || result.IP6 == nil {
		t.Errorf("%s: %+v", failure, result)
	}
	before := len(reservedOn(t, s.A))
	if r := m.del(t); r.Code != 0 {
		t.Errorf("DEL fails: %s%s", r.Stdout, r.Stderr)
	}
	if now := len(reservedOn(t, s.A)); now != before-1 {
		t.Errorf("%d addresses are reserved, of %d before", now, before)
	}
}
