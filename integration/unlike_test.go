package integration

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// TestHostsUnlikeOthers: a host with IPv6 off, and one that has no iptables but
// the legacy ones of IPv4. Overlays of IPv4 work there as on any, and without a
// word; those with IPv6 say what to do.
func TestHostsUnlikeOthers(t *testing.T) {
	t.Parallel()
	s := newCNIScene(t)
	ctx := t.Context()
	shell := func(h *lab.Host, script string) {
		t.Helper()
		_, err := h.Run(ctx, "sh", "-ec", script)
		check(t, err)
	}
	shell(s.A, `sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1`)
	shell(s.B, `cd /usr/sbin; rm -f *-nft* xtables-nft* nft ip6tables*
		for f in iptables iptables-save iptables-restore; do ln -sf xtables-legacy-multi "$f"; done`)
	remedies := map[*lab.Host][]string{
		s.A: {"IPv6 is off", "sysctl -w net.ipv6.conf.all.disable_ipv6=0", "enable_ipv6"},
		s.B: {"ip6tables-restore not found", "install the package iptables", "enable_ipv6"},
	}
	on := func(h *lab.Host, overlay string) cniCall {
		return cniCall{Verb: "ADD", ID: overlay, Netns: "/run/netns/" + overlay, Conf: netConf(overlay, "1.1.0")}
	}
	try := func(companion bool) {
		t.Helper()
		for _, h := range s.Agents() {
			for _, overlay := range []string{"dual", "dcos6"} {
				on(h, overlay).verb("STATUS").fails(t, h, types.ErrPluginNotAvailable, remedies[h]...)
				on(h, overlay).fails(t, h, types.ErrInternal, remedies[h]...)
			}
			on(h, "dcos").verb("STATUS").ok(t, h)
			if a := on(h, "dcos").ok(t, h); a.stderr != "" {
				t.Errorf("%s, companion %t: an ADD of IPv4 says %s", h.Name, companion, a.stderr)
			}
			on(h, "dcos").verb("DEL").ok(t, h)
			if left := nothingOf(t, h); left != "" {
				t.Errorf("%s, companion %t: left behind:\n%s", h.Name, companion, left)
			}
		}
	}
	for _, h := range s.Agents() {
		for _, overlay := range []string{"dcos", "dual", "dcos6"} {
			newNetns(t, h, overlay)
		}
	}
	try(false)

	mesos := map[string]any{"network_config": map[string]any{"docker_bridge": false}}
	for _, h := range s.Agents() {
		s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, must[[]byte](t)(s.AgentJSON(mesos))))
	}
	try(true)
	to := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "to", Conf: scene.CNI("dcos")}))
	must[*lab.Process](t)(to.Serve(ctx, scene.Port))
	from := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "from", Conf: scene.CNI("dcos")}))
	awaitReach(t, &from.Place, serverOf(to), from.IP4)
	for _, h := range s.Agents() {
		_, health, err := h.HTTP(ctx, http.MethodGet, "http://127.0.0.1:64002/healthz", nil)
		check(t, err)
		for line := range strings.Lines(strings.TrimPrefix(string(health), "ok\n")) {
			if !strings.Contains(line, "overlay dual: ") && !strings.Contains(line, "overlay dcos6: ") {
				t.Errorf("%s: /healthz says %s", h.Name, line)
			}
		}
		for _, l := range must[[]finding](t)(doctor(ctx, h)) {
			named := strings.Contains(l.String(), "dual") || strings.Contains(l.String(), "dcos6")
			if l.Level != "ok" && !named {
				t.Errorf("%s: doctor says %s", h.Name, l)
			}
		}
	}
	check(t, from.Delete(ctx))

	// With enable_ipv6 false, as the messages say, what was leased is no
	// hindrance; an overlay of IPv6 alone is refused still.
	four := map[string]any{"network_config": map[string]any{"docker_bridge": false, "enable_ipv6": false}}
	for _, h := range s.Agents() {
		configure(t, s, h, four)
		r := resultOf(t, on(h, "dual").ok(t, h).stdout, "1.1.0")
		if a := addrsOf(r); len(a) != 1 || !a[0].Is4() {
			t.Errorf("%s: with enable_ipv6 false a container gets %v", h.Name, a)
		}
		on(h, "dual").verb("STATUS").ok(t, h)
		on(h, "dual").verb("DEL").ok(t, h)
		on(h, "dcos6").verb("STATUS").fails(t, h, types.ErrPluginNotAvailable, "enable_ipv6 is false")
		if a := on(h, "dcos6").run(t, h); a.failure == nil || !strings.Contains(a.failure.Msg, "enable_ipv6") {
			t.Errorf("%s: IPv6 alone with enable_ipv6 false is answered %+v", h.Name, a.failure)
		}
	}

	// IPv6 needs an MTU that an underlay may not have.
	check(t, s.Companions[s.A.Name].Stop(ctx))
	shell(s.A, `sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0
		rm -r /run/dcos-overlay/ready; ip link del vtep1024; ip link del m-dual; ip link set eth0 mtu 1320`)
	configure(t, s, s.A, map[string]any{"network_config": map[string]any{"docker_bridge": false, "overlay_mtu": 0}})
	small := []string{"the overlays' MTU is 1270", "IPv6 needs 1280", "eth0"}
	on(s.A, "dual").verb("STATUS").fails(t, s.A, types.ErrPluginNotAvailable, small...)
	on(s.A, "dual").fails(t, s.A, types.ErrInternal, small...)
	on(s.A, "dcos").ok(t, s.A)
	on(s.A, "dcos").verb("DEL").ok(t, s.A)

	// With all that it needs there is IPv6.
	shell(s.A, `ip link set eth0 mtu 1330`)
	r := resultOf(t, on(s.A, "dual").ok(t, s.A).stdout, "1.1.0")
	if a := addrsOf(r); len(a) != 2 {
		t.Errorf("with an MTU of 1280 a container gets %v", a)
	}
	_, err := s.A.Run(ctx, "nsenter", "--net=/run/netns/dual", "ping", "-c1", "-W5", r.IPs[1].Gateway.String())
	check(t, err)
}

// TestReadOnlyDirectories: what can't be kept is told with the remedy, before
// and after a claim, and by the companion once and not with each pass.
func TestReadOnlyDirectories(t *testing.T) {
	t.Parallel()
	s := newCNIScene(t)
	h := s.A
	ctx := t.Context()
	mount := func(option, dir string) {
		t.Helper()
		_, err := h.Run(ctx, "sh", "-ec", `mkdir -p "$1"; mountpoint -q "$1" || mount --bind "$1" "$1"; mount -o "remount,bind,$0" "$1"`, option, dir)
		check(t, err)
	}
	const state, run, remedy = "/var/lib/dcos-overlay", "/run/dcos-overlay", "read-only file system: make that file system writable"
	on := func(overlay string) cniCall {
		return cniCall{Verb: "ADD", ID: overlay, Netns: "/run/netns/" + overlay, Conf: netConf(overlay, "1.1.0")}
	}
	for _, overlay := range []string{"dcos", "dual"} {
		newNetns(t, h, overlay)
	}
	conf := map[string]any{"cni_data_dir": run + "/networks", "network_config": map[string]any{"docker_bridge": false}}
	configure(t, s, h, conf)
	mount("ro", state)
	on("dcos").verb("STATUS").fails(t, h, types.ErrPluginNotAvailable, state, remedy)
	on("dcos").fails(t, h, types.ErrIOFailure, state+"/agent-id", remedy)
	mount("rw", state)
	on("dcos").verb("STATUS").ok(t, h)
	on("dcos").ok(t, h)

	mount("ro", state)
	on("dual").fails(t, h, types.ErrIOFailure, state+"/lease.json", remedy)
	on("dcos").verb("DEL").ok(t, h)
	on("dcos").ok(t, h)
	p := must[*lab.Process](t)(h.StartCompanion(ctx, must[[]byte](t)(s.AgentJSON(conf)), "--interval", "1s"))
	s.Companions[h.Name] = p
	untilHost(t, h, "some passes", regexp.MustCompile(`(?m)^dcos_overlay_companion_passes_total ([5-9]|\d\d)`).MatchString, "curl -fsS http://127.0.0.1:64002/metrics")
	const told = "the lease is not brought up to date"
	if n := strings.Count(p.Log(), told); n != 1 {
		t.Errorf("the companion tells %d times that %s:\n%s", n, told, p.Log())
	}
	check(t, p.Stop(ctx))
	_, err := h.Run(ctx, "umount", state)
	check(t, err)

	mount("ro", run)
	on("dcos").verb("STATUS").fails(t, h, types.ErrPluginNotAvailable, run, remedy)
	on("dual").fails(t, h, types.ErrIOFailure, run, remedy)
	on("dcos").verb("DEL").fails(t, h, types.ErrIOFailure, run, remedy)
	_, err = h.Run(ctx, "umount", run)
	check(t, err)
	on("dcos").verb("DEL").ok(t, h)
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
