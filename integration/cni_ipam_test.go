package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// ipamConf is netConf with another IPAM section.
func ipamConf(overlay, version string, ipam map[string]any) map[string]any {
	conf := netConf(overlay, version)
	conf["ipam"] = ipam
	return conf
}

// TestHostLocal: the stock plugin gets the leased ranges, and shares its store
// with ours.
func TestHostLocal(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	for _, v := range []string{"", "0.4.0", "1.1.0"} {
		for overlay, want := range families {
			id := strings.ReplaceAll(fmt.Sprint("hl", overlay, v), ".", "")
			c := cniCall{Verb: "ADD", ID: id, Netns: newNetns(t, h, id), Conf: ipamConf(overlay, v, map[string]any{"type": "host-local"})}
			a := c.ok(t, h)
			result := resultOf(t, a.stdout, v)
			if n := want[0] + want[1]; len(result.IPs) != n || len(result.Routes) != n {
				t.Errorf("%s: %s", c, a.stdout)
			}
			checkInterfaces(t, h, c, result)
			c.fails(t, h, 103, id)
			for _, addr := range addrsOf(result) {
				if !slices.Contains(reservedOn(t, h), addr.String()) {
					t.Errorf("%s: %s is not reserved where ours are", c, addr)
				}
				// Neither of the two gives what the other has given.
				other := cniCall{Verb: "ADD", ID: "other", Netns: newNetns(t, h, "other"), Conf: netConf(overlay, v)}
				other.Args = "IP=" + addr.String()
				other.fails(t, h, 104, "another container has it: "+id+"/eth0")
				_, err := h.Run(ctx, "ip", "netns", "del", "other")
				check(t, err)
			}
			if v != "" {
				c.with(map[string]any{"prevResult": prevOf(t, a)}).verb("CHECK").ok(t, h)
			}
			// A DEL needs neither the program nor the lease.
			c.Path = "/nowhere"
			_, err := h.Run(ctx, "mv", "/var/lib/dcos-overlay", "/var/lib/aside")
			check(t, err)
			c.verb("DEL").ok(t, h)
			_, err = h.Run(ctx, "mv", "/var/lib/aside", "/var/lib/dcos-overlay")
			check(t, err)
			if left := nothingOf(t, h); left != "" {
				t.Errorf("%s has left:\n%s", c, left)
			}
		}
	}
	// What Mesos asks for reaches it; what can't be had leaves nothing.
	task := cniCall{Verb: "ADD", ID: "task", Netns: newNetns(t, h, "task"), Conf: ipamConf("dcos", "", map[string]any{"type": "host-local"})}
	ask := func(ip string) cniCall {
		return task.with(map[string]any{"args": map[string]any{"org.apache.mesos": map[string]any{"network_info": map[string]any{
			"ip_addresses": []any{map[string]any{"ip_address": ip}}}}}})
	}
	ask("1.2.3.4").fails(t, h, 107, "host-local", "1.2.3.4")
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	if got := addrsOf(resultOf(t, ask("9.0.0.77").ok(t, h).stdout, "")); got[0] != netip.MustParseAddr("9.0.0.77") {
		t.Errorf("got %v", got)
	}
	gc := cniCall{Verb: "GC", Conf: ipamConf("dcos", "1.1.0", map[string]any{"type": "host-local"})}
	gc.with(map[string]any{"cni.dev/valid-attachments": []any{}}).ok(t, h)
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind by GC:\n%s", left)
	}
}

// TestStatic: any other IPAM plugin is run as it stands, and its addresses
// that are of the leased subnets are nobody else's.
func TestStatic(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	// The lease is made by the first container.
	first := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "first", Conf: scene.CNI("dcos")}))
	must[*lab.Process](t)(first.Serve(ctx, scene.Port))
	static := map[string]any{"type": "static", "addresses": []any{map[string]any{"address": "9.0.0.50/25"}}, "dns": map[string]any{"nameservers": []string{"198.51.100.7"}}}
	c := cniCall{Verb: "ADD", ID: "s1", Netns: newNetns(t, h, "s1"), Conf: ipamConf("dcos", "1.1.0", static)}
	c.verb("STATUS").ok(t, h)
	a := c.ok(t, h)
	result := resultOf(t, a.stdout, "1.1.0")
	if fmt.Sprint(addrsOf(result)) != "[9.0.0.50]" || result.IPs[0].Gateway.String() != "9.0.0.1" || len(result.DNS.Nameservers) != 1 {
		t.Errorf("got %s", a.stdout)
	}
	if seen := must[string](t)(h.Run(ctx, "ip", "netns", "exec", "s1", "probe", "dial", serverOf(first).String())); !strings.HasPrefix(seen, "9.0.0.50:") {
		t.Errorf("seen as %s", seen)
	}
	c.with(map[string]any{"prevResult": prevOf(t, a)}).verb("CHECK").ok(t, h)
	c.fails(t, h, 103, "s1")
	two := c
	two.ID, two.Netns = "s2", newNetns(t, h, "s2")
	two.fails(t, h, 104, "9.0.0.50", "s1/eth0")
	taken := cniCall{Verb: "ADD", ID: "s2", Netns: two.Netns, Args: "IP=9.0.0.50", Conf: netConf("dcos", "")}
	taken.fails(t, h, 104, "s1/eth0")
	c.verb("DEL").ok(t, h)
	two.ok(t, h)
	// Gone from CNI_PATH, its DEL can't be done, until it is back.
	gone := two.verb("DEL")
	gone.Path = "/nowhere"
	gone.fails(t, h, 7, "static", "/nowhere")
	two.verb("DEL").ok(t, h)
	gone.ok(t, h)
	check(t, first.Delete(ctx))

	// An address of elsewhere is the operator's business.
	elsewhere := map[string]any{"type": "static", "addresses": []any{map[string]any{"address": "192.0.2.5/24"}}}
	c.Conf = ipamConf("dcos", "0.3.1", elsewhere)
	if got := addrsOf(resultOf(t, c.ok(t, h).stdout, "0.3.1")); fmt.Sprint(got) != "[192.0.2.5]" {
		t.Errorf("got %v", got)
	}
	c.verb("DEL").ok(t, h)
	c.Conf = ipamConf("dcos", "", map[string]any{"type": "static"})
	c.fails(t, h, 107, "static", "it gave none")
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestIPAMUnderOtherMainPlugins uses dcos-ipam under bridge, ptp and macvlan,
// through libcni.
func TestIPAMUnderOtherMainPlugins(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	_, err := h.Run(ctx, "sh", "-ec", "ip link add parent0 type bridge; ip link set parent0 up")
	check(t, err)
	for name, main := range map[string]string{
		"bridge":  `"type": "bridge", "bridge": "br0", "isGateway": true`,
		"ptp":     `"type": "ptp", "ipMasq": false`,
		"macvlan": `"type": "macvlan", "master": "parent0"`,
	} {
		conf := fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": %q, %s, "ipam": {"type": "dcos-ipam", "overlay": "dual", "routes": [{"dst": "10.0.0.0/8"}, {"dst": "fd01::/16"}]}, "dns": {"nameservers": ["198.51.100.7"]}}`, "under-"+name, main)
		c := must[*lab.Container](t)(h.CNIToolContainer(ctx, name, conf))
		if !c.IP4.IsValid() || !c.IP6.IsValid() || !strings.Contains(string(c.Result), `"dst": "10.0.0.0/8"`) || !strings.Contains(string(c.Result), "198.51.100.7") {
			t.Errorf("%s: %s", name, c.Result)
		}
		_, err := h.Run(ctx, "env", "CNI_PATH="+plugins(t), "NETCONFPATH=/etc/cni/net.d", "cnitool", "check", "under-"+name, c.Netns)
		check(t, err)
		check(t, c.Delete(ctx))
	}
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestGC removes what is not listed: of its own network, and no other's.
func TestGC(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	alias := netConf("another-network", "1.1.0")
	alias["overlay"] = "dcos"
	add := func(id string, conf map[string]any) cniCall {
		t.Helper()
		c := cniCall{Verb: "ADD", ID: id, Netns: newNetns(t, h, id), Conf: conf}
		c.ok(t, h)
		return c
	}
	ports := map[string]any{"runtimeConfig": runtimePorts(31000)}
	add("keep", netConf("dcos", "1.1.0"))
	withPorts := cniCall{Verb: "ADD", ID: "drop", Netns: newNetns(t, h, "drop"), Conf: netConf("dcos", "1.1.0")}.with(ports)
	withPorts.ok(t, h)
	add("other", netConf("dual", "1.1.0"))
	aliased := add("alias", alias)
	hostLocal := add("foreign", ipamConf("dcos", "1.1.0", map[string]any{"type": "host-local"}))
	bridged := must[*lab.Container](t)(h.CNIToolContainer(ctx, "bridged",
		[]byte(`{"cniVersion": "1.0.0", "name": "plain", "type": "bridge", "bridge": "br0", "ipam": {"type": "dcos-ipam", "overlay": "dcos"}}`)))
	// A link whose reservation was lost, and one that is valid and has lost
	// it, too.
	lost := add("lost", netConf("dcos", "1.1.0"))
	unlucky := add("unlucky", netConf("dcos", "1.1.0"))
	for _, c := range []cniCall{lost, unlucky} {
		_, err := h.Run(ctx, "sh", "-c", `find -L /run/dcos -type f -exec grep -l "$0" {} + | xargs rm`, c.ID)
		check(t, err)
	}
	before := len(reservedOn(t, h))

	links := func() int {
		return strings.Count(must[string](t)(h.Run(ctx, "ip", "-o", "link")), " dov")
	}
	beforeLinks := links()
	gc := cniCall{Verb: "GC", Conf: netConf("dcos", "1.1.0")}.with(map[string]any{
		"cni.dev/valid-attachments": []any{map[string]any{"containerID": "keep", "ifname": "eth0"}, map[string]any{"containerID": "unlucky", "ifname": "eth0"}},
		"cni.dev/attachments":       []any{map[string]any{"containerID": "foreign", "ifname": "eth0"}},
	})
	gc.ok(t, h)
	if n := before - len(reservedOn(t, h)); n != 1 {
		t.Errorf("%d addresses were freed, not 1", n)
	}
	if n := beforeLinks - links(); n != 2 {
		t.Errorf("%d links were removed, not 2", n)
	}
	if out := must[string](t)(h.Run(ctx, "iptables-save", "-t", "nat")); strings.Contains(out, "31000") {
		t.Errorf("the port mappings are still there:\n%s", out)
	}
	// Each network's own GC; that of dcos-ipam is for what another main
	// plugin has attached.
	plain := cniCall{Plugin: "dcos-ipam", Verb: "GC", Conf: map[string]any{"cniVersion": "1.1.0", "name": "dcos", "type": "bridge", "ipam": map[string]any{"type": "dcos-ipam"}}}
	plain = plain.with(map[string]any{"cni.dev/valid-attachments": nil})
	was := reservedOn(t, h)
	plain.ok(t, h)
	// host-local's are on record as dcos-overlay's since Adopt.
	if now := reservedOn(t, h); !slices.Equal(was, now) {
		t.Errorf("from %q to %q", was, now)
	}
	plain.with(map[string]any{"name": "plain", "ipam": map[string]any{"type": "dcos-ipam", "overlay": "dcos"}}).ok(t, h)
	if now := reservedOn(t, h); len(now) != len(was)-1 || slices.Contains(now, bridged.IP4.String()) {
		t.Errorf("from %q to %q", was, now)
	}
	aliased.verb("GC").with(map[string]any{"cni.dev/attachments": []any{}}).ok(t, h)
	hostLocal.verb("GC").with(map[string]any{"cni.dev/attachments": []any{}}).ok(t, h)
	cniCall{Verb: "GC", Conf: netConf("dual", "1.1.0")}.with(map[string]any{"cni.dev/attachments": []any{}}).ok(t, h)
	check(t, bridged.Delete(ctx))
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
