package integration

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// mesosPorts are port mappings in Mesos's words: one host port for TCP, and
// the next for UDP, to where a container serves.
func mesosPorts(host int) map[string]any {
	return map[string]any{"port_mappings": []any{
		map[string]any{"host_port": host, "container_port": scene.Port},
		map[string]any{"host_port": host + 1, "container_port": scene.Port, "protocol": "udp"},
	}}
}

// runtimePorts are the same in libcni's.
func runtimePorts(host int) map[string]any {
	return map[string]any{"portMappings": []any{
		map[string]any{"hostPort": host, "containerPort": scene.Port, "protocol": "tcp"},
		map[string]any{"hostPort": host + 1, "containerPort": scene.Port, "protocol": "UDP"},
	}}
}

// way is one way to a host's port. seen is who the container sees; not valid
// where that is a masquerading host's business.
type way struct {
	name     string
	from     *lab.Place
	to, seen netip.Addr
}

// reachPorts wants TCP at port, and UDP at the next, by each way.
func reachPorts(t *testing.T, ways []way, port uint16) {
	t.Helper()
	for _, w := range ways {
		for i, dial := range []func(*lab.Place, context.Context, netip.AddrPort) (netip.AddrPort, error){(*lab.Place).Dial, (*lab.Place).DialUDP} {
			to := netip.AddrPortFrom(w.to, port+uint16(i))
			seen, err := dial(w.from, t.Context(), to)
			if err != nil {
				t.Errorf("%s to %s, protocol %d: %v", w.name, to, i, err)
			} else if w.seen.IsValid() && seen.Addr() != w.seen {
				t.Errorf("%s to %s, protocol %d: the container sees %s, not %s", w.name, to, i, seen, w.seen)
			}
		}
	}
}

// TestPortMappings leads ports of a host that forwards nothing by default to
// containers, asked for by Mesos and by a libcni runtime.
func TestPortMappings(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	_, err := h.Run(ctx, "sh", "-ec", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
	check(t, err)
	// A client that was there before the container: the kernel remembers
	// where its packets went.
	const stale = "conntrack -%s -p udp -s 172.17.0.1 -d 172.17.0.4 --sport 5555 --dport 31001"
	_, err = h.Run(ctx, "sh", "-ec", fmt.Sprintf(stale, "I")+" --timeout 600")
	check(t, err)

	four := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "four", Conf: scene.CNI("dcos"), NetworkInfo: mesosPorts(31000)}))
	six := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "six", Conf: scene.CNI("dcos6"), NetworkInfo: mesosPorts(31010)}))
	dual := cniCall{Verb: "ADD", ID: "dual", Netns: newNetns(t, h, "dual"), Conf: netConf("dual", "1.0.0")}.with(map[string]any{"runtimeConfig": runtimePorts(31020)})
	dualAddrs := addrsOf(resultOf(t, dual.ok(t, h).stdout, "1.0.0"))
	_, err = h.Start(ctx, "serve-dual", "ip", "netns", "exec", "dual", "probe", "serve", fmt.Sprintf(":%d", scene.Port))
	check(t, err)
	near := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "near", Conf: scene.CNI("dcos")}))
	far := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "far", Conf: scene.CNI("dcos")}))
	for _, c := range []*lab.Container{four, six} {
		must[*lab.Process](t)(c.Serve(ctx, scene.Port))
	}
	if r, err := h.Exec(ctx, lab.Command{Args: []string{"sh", "-c", fmt.Sprintf(stale, "L")}}); err != nil || strings.Contains(r.Stdout, "5555") {
		t.Errorf("the stale entry of UDP port 31001 is still there: %v %s", err, r.Stdout)
	}

	outside := s.Lab.Outside
	any := netip.Addr{}
	ways4 := []way{
		{"outside", &outside.Place, h.Addr, lab.Router4},
		{"another host", &s.B.Place, h.Addr, s.B.Addr},
		{"the host", &h.Place, h.Addr, any},
		{"the host's loopback", &h.Place, netip.MustParseAddr("127.0.0.1"), any},
		{"a container of the host", &near.Place, h.Addr, any},
		{"a container of another host", &far.Place, h.Addr, any},
	}
	ways6 := []way{
		{"outside", &outside.Place, h.Addr6, lab.Router6},
		{"another host", &s.B.Place, h.Addr6, s.B.Addr6},
		{"the host", &h.Place, h.Addr6, any},
	}
	reachPorts(t, append(ways4, way{"the container itself", &four.Place, h.Addr, any}), 31000)
	reachPorts(t, append(ways6, way{"the container itself", &six.Place, h.Addr6, any}), 31010)
	reachPorts(t, append(ways4[:4], ways6...), 31020)

	// Clients of UDP ports, who go on sending whatever happens.
	for _, f := range []struct{ client, host, container netip.Addr }{
		{lab.Router4, h.Addr, dualAddrs[0]}, {lab.Router6, h.Addr6, dualAddrs[1]},
	} {
		_, err := h.Run(ctx, "sh", "-ec", fmt.Sprintf(`conntrack -I --timeout 600 -p udp -s %[1]s -d %[2]s --sport 4444 --dport 31021 \
			-r %[3]s -q %[1]s --reply-port-src 8080 --reply-port-dst 4444`, f.client, f.host, f.container))
		check(t, err)
	}

	// The ports go with the container, and before its address is another's.
	check(t, four.Delete(ctx))
	check(t, six.Delete(ctx))
	dual.verb("DEL").ok(t, h)
	flows := must[string](t)(h.Run(ctx, "sh", "-c", "conntrack -L -f ipv4; conntrack -L -f ipv6"))
	for _, gone := range append(dualAddrs, four.IP4, six.IP6) {
		if strings.Contains(flows, "src="+gone.String()+" ") {
			t.Errorf("the next container with %s would get what is sent by\n%s", gone, flows)
		}
	}
	if _, err := outside.Dial(ctx, netip.AddrPortFrom(h.Addr, 31000)); err == nil {
		t.Error("the port leads somewhere after DEL")
	}
	check(t, near.Delete(ctx))
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// TestPortMapperFails: what an ADD did is undone, and a DEL that can't unmap a
// port keeps the address from the next container.
func TestPortMapperFails(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	fake := func(body string) {
		t.Helper()
		check(t, h.WriteFile(ctx, "/opt/fake/portmap", []byte("#!/bin/sh\n"+body+"\n")))
		_, err := h.Run(ctx, "chmod", "755", "/opt/fake/portmap")
		check(t, err)
	}
	const broken = `cat >/dev/null; echo '{"code": 999, "msg": "out of order", "details": "and the reason"}'; exit 1`
	c := cniCall{Verb: "ADD", ID: "c1", Netns: newNetns(t, h, "c1"), Path: "/opt/fake", Conf: netConf("dcos", "")}
	c = c.with(map[string]any{"args": map[string]any{"org.apache.mesos": map[string]any{"network_info": mesosPorts(31000)}}})

	fake(`[ "$CNI_COMMAND" = DEL ] && exit 0; ` + broken)
	c.fails(t, h, 106, "out of order", "31000 to 8080/tcp", "31001 to 8080/udp", "/opt/fake/portmap")
	if said := c.run(t, h).failure; said == nil || said.Details != "and the reason" || strings.Contains(said.Msg, said.Details) {
		t.Errorf("portmap's details are %+v", said)
	}
	if left := nothingOf(t, h); left != "" {
		t.Errorf("a failed ADD has left:\n%s", left)
	}
	// A DEL of it has nothing to unmap, and needs no portmap.
	none := c.verb("DEL")
	none.Path = "/nowhere"
	none.ok(t, h)

	fake(`[ "$CNI_COMMAND" = DEL ] || exit 0; ` + broken)
	added := resultOf(t, c.ok(t, h).stdout, "")
	c.verb("DEL").fails(t, h, 106, "out of order", "stays reserved")
	if got := reservedOn(t, h); len(got) != 1 || got[0] != addrsOf(added)[0].String() {
		t.Errorf("reserved are %q", got)
	}
	if out := must[string](t)(h.Run(ctx, "ip", "-o", "link")); strings.Contains(out, "dov") {
		t.Errorf("the link stays because of a port: %s", out)
	}
	// The runtime's plugins are elsewhere by now: portmap is where it was.
	fake(`echo "$CNI_COMMAND $CNI_CONTAINERID" >>/tmp/called; cat >>/tmp/called`)
	none.ok(t, h)
	called := string(must[[]byte](t)(h.ReadFile(ctx, "/tmp/called")))
	if !strings.Contains(called, "DEL c1") || !strings.Contains(called, `"hostPort":31000`) || !strings.Contains(called, `"name":"dcos"`) {
		t.Errorf("portmap was called with %s", called)
	}
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}

	// Another program's mappings are none of ours.
	off := c.with(map[string]any{"mapPorts": false})
	off.Path = "/nowhere"
	off.ok(t, h)
	off.verb("DEL").ok(t, h)
	if now := string(must[[]byte](t)(h.ReadFile(ctx, "/tmp/called"))); now != called {
		t.Errorf("with mapPorts false portmap was called: %s", now)
	}
}

// TestCheckOfPortMappings finds a rule that is gone.
func TestCheckOfPortMappings(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	c := cniCall{Verb: "ADD", ID: "c1", Netns: newNetns(t, h, "c1"), Conf: netConf("dual", "0.4.0")}.with(map[string]any{"runtimeConfig": runtimePorts(31000)})
	c = c.with(map[string]any{"prevResult": prevOf(t, c.ok(t, h))})
	c.verb("CHECK").ok(t, h)
	_, err := h.Run(t.Context(), "sh", "-ec", `ip6tables -t nat -F CNI-HOSTPORT-DNAT`)
	check(t, err)
	c.verb("CHECK").fails(t, h, 105, "portmap")
	c.verb("DEL").ok(t, h)
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
