package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/peerset"
)

// finding is a line of doctor's.
type finding struct{ Level, Name, Text, Remedy string }

func (f finding) String() string {
	return fmt.Sprintf("%-4s %s: %s -> %s", f.Level, f.Name, f.Text, f.Remedy)
}

// doctor examines a host. Its status must be 1 if anything fails, else 0.
func doctor(ctx context.Context, on *lab.Host) ([]finding, error) {
	r, err := on.Exec(ctx, lab.Command{Args: []string{"dcos-overlayctl", "doctor", "-o", "json"}})
	if err != nil {
		return nil, err
	}
	var lines []finding
	if err := json.Unmarshal([]byte(r.Stdout), &lines); err != nil {
		return nil, fmt.Errorf("doctor answered %d, %q, %q: %w", r.Code, r.Stdout, r.Stderr, err)
	}
	code := 0
	for _, l := range lines {
		if l.Level == "fail" {
			code = 1
		}
		if (l.Level == "ok") != (l.Remedy == "") {
			return lines, fmt.Errorf("a remedy stands where nothing is wrong, or none where something is: %s", l)
		}
	}
	if r.Code != code {
		return lines, fmt.Errorf("doctor exited with %d, not %d: %s", r.Code, code, r.Stderr)
	}
	return lines, nil
}

// text is findings, one a line, without those that are ok if only trouble is
// asked for.
func text(lines []finding, trouble bool) string {
	var out strings.Builder
	for _, l := range lines {
		if !trouble || l.Level != "ok" {
			fmt.Fprintln(&out, l)
		}
	}
	return out.String()
}

// symptom is what doctor says of a fault, as parts of one line.
type symptom struct{ level, text, remedy string }

// symptoms are by the names of the companion's faults.
func symptoms() map[string]symptom {
	const start = "systemctl start dcos-overlay-companion"
	return map[string]symptom{
		"VTEP deleted":                        {"fail", "vtep1024: it is missing", start},
		"VTEP's MAC changed":                  {"fail", "vtep1024: its MAC is 02:00:00:00:00:07, not 70:b3:d5:80:00:02", start},
		"VTEP's MTU changed":                  {"fail", "vtep1024: its MTU is 1000, not 1420", start},
		"VTEP's address deleted":              {"fail", "vtep1024: it lacks the address 44.128.0.2/20", start},
		"VTEP down":                           {"fail", "vtep1024: it is down", start},
		"a route deleted":                     {"fail", "it lacks route 9.0.2.0/24 via 44.128.0.3", start},
		"a neighbour deleted":                 {"fail", "it lacks neighbour 44.128.0.3 lladdr 70:b3:d5:80:00:03", start},
		"a forwarding entry deleted":          {"fail", "it lacks forwarding entry 70:b3:d5:80:00:03 dst 172.17.0.3", start},
		"all routes flushed":                  {"fail", "vtep1024: it lacks the route to its own range 44.128.0.0/20", start},
		"a stray entry on the VTEP":           {"fail", "it has a stray route 9.0.99.0/24 via 44.128.0.77", start},
		"forwarding turned off":               {"fail", "net.ipv4.ip_forward is 0, not 1", "/etc/sysctl.d"},
		"m-dcos deleted":                      {"fail", "m-dcos: it is missing", start},
		"m-dcos and m-dcos6 deleted":          {"fail", "m-dcos6: it is missing", start},
		"a container's link taken off m-dcos": {"fail", "m-dcos: links of containers are not on it: dov", start},
		"iptables -F":                         {"fail", "chain DCOS-OVERLAY-FORWARD has other rules", start},
		"iptables -t nat -F":                  {"fail", "chain DCOS-OVERLAY-MASQ has other rules", start},
		"iptables -P FORWARD DROP":            {"ok", "policy DROP, and overlay traffic is accepted before", ""},
		"all chains of ours deleted":          {"fail", "chain DCOS-OVERLAY-MASQ is missing", start},
		"docker network rm dcos":              {"fail", "Docker network dcos is missing", start},
		"d-dcos deleted":                      {"fail", "its bridge d-dcos is missing", start},
		"dockerd killed and restarted":        {"fail", "Docker Engine not reachable", "systemctl start docker"},
		"companion killed, VTEP deleted, companion restarted": {"warn", "none runs on this host", start},
		"coordinator away for a minute, then VTEP deleted":    {"fail", "no answer", "start"},
		"port 64000 taken by another":                         {"fail", "UDP port 64000 is taken by the VXLAN device vx-taken (VNI 77)", "end the other program"},
		"VXLAN dropped by a firewall":                         {"fail", "VXLAN packets (UDP 64000) are dropped: table filter: -A INPUT -p udp -m udp --dport 64000 -j DROP", "--dport 64000 -j ACCEPT"},
		"underlay's MTU too small":                            {"warn", "overlay_mtu is 1420, and eth0, whose MTU is 1300, takes 1250 inside VXLAN", "overlay_mtu"},
		"a peer's answers dropped":                            {"fail", "VTEP 44.128.0.3 of agent 172.17.0.3: no answer", "let UDP port 64000 through"},
		"a peer not in the filter":                            {"fail", "lacks agent 172.17.0.3, whose packets are dropped", start},
	}
}

// doctorFaults are the companion's and some more. Those of which the
// companion's restart is a part are made without it.
func (h *healing) doctorFaults() []fault {
	var out []fault
	for _, f := range h.faults() {
		after := f.after
		f.after = nil // it brings back what is of no interest here
		switch f.name {
		case "iptables -P FORWARD DROP":
			f.after = after
		case "dockerd killed and restarted":
			f.do = func(context.Context) { check(h.T, h.docker.Kill()) }
			f.after = func(ctx context.Context) { h.docker = must[*lab.Process](h.T)(h.A.StartDocker(ctx)) }
		case "companion killed, VTEP deleted, companion restarted":
			f.do = h.run(`ip link del vtep1024`)
		case "coordinator away for a minute, then VTEP deleted":
			f.do = func(ctx context.Context) {
				check(h.T, h.Coordinator.Kill())
				h.run(`ip link del vtep1024`)(ctx)
			}
			f.after = func(ctx context.Context) { check(h.T, h.StartCoordinator(ctx)) }
		}
		out = append(out, f)
	}
	more := func(name, do, after string) {
		out = append(out, fault{name: name, do: h.run(do), after: h.run(after)})
	}
	more("port 64000 taken by another", `
		ip link del vtep1024
		ip link add vx-taken type vxlan id 77 dstport 64000 local 172.17.0.4
		ip link set vx-taken addrgenmode none up`, `ip link del vx-taken`)
	more("VXLAN dropped by a firewall", `iptables -w -I INPUT 1 -p udp -m udp --dport 64000 -j DROP`, `iptables -w -D INPUT -p udp -m udp --dport 64000 -j DROP`)
	more("underlay's MTU too small", `ip link set eth0 mtu 1300`, `ip link set eth0 mtu 1500`)
	out = append(out,
		fault{name: "a peer's answers dropped",
			do: func(ctx context.Context) {
				must[string](h.T)(h.B.Run(ctx, "iptables", "-w", "-I", "OUTPUT", "1", "-p", "udp", "--dport", "64000", "-j", "DROP"))
			},
			after: func(ctx context.Context) {
				must[string](h.T)(h.B.Run(ctx, "iptables", "-w", "-D", "OUTPUT", "-p", "udp", "--dport", "64000", "-j", "DROP"))
			}},
		fault{name: "a peer not in the filter", do: func(context.Context) {
			check(h.T, h.A.Inside(func() error {
				return netlink.IpsetDel(peerset.Name4, &netlink.IPSetEntry{IP: h.B.Addr.AsSlice()})
			}))
		}},
	)
	return out
}

// TestDoctor stops a host's companion and harms the host in every way that the
// companion mends, and in some that it can't: doctor names each, and what to do.
func TestDoctor(t *testing.T) {
	t.Parallel()
	h := newHealing(t)
	ctx := t.Context()
	h.whole = must[string](t)(h.overlays(ctx))

	// The coordinator takes a report's time to know all agents for alive.
	h.isHealthy()
	t.Logf("a healthy host:\n%s", text(must[[]finding](t)(doctor(ctx, h.A)), false))

	known := symptoms()
	var report strings.Builder
	for _, f := range h.doctorFaults() {
		want, ok := known[f.name]
		if !ok {
			t.Errorf("there is no word on what doctor says of: %s", f.name)
			continue
		}
		delete(known, f.name)
		check(t, h.Companions["a"].Stop(ctx))
		// On a busy machine an answer comes too late for doctor now and then.
		check(t, h.eventually("doctor to miss the companion alone before: "+f.name, func(ctx context.Context) error {
			lines, err := doctor(ctx, h.A)
			if bad := strings.TrimSpace(text(lines, true)); err == nil && (!strings.HasPrefix(bad, "warn companion: none runs") || strings.Contains(bad, "\n")) {
				err = fmt.Errorf("it says:\n%s", bad)
			}
			return err
		}))
		f.do(ctx)
		check(t, h.eventually("doctor to tell of: "+f.name, func(ctx context.Context) error {
			lines, err := doctor(ctx, h.A)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(lines, func(l finding) bool {
				return l.Level == want.level && strings.Contains(l.Text, want.text) && strings.Contains(l.Remedy, want.remedy)
			})
			if i < 0 {
				return fmt.Errorf("it does not say %v, but:\n%s", want, text(lines, true))
			}
			fmt.Fprintf(&report, "%s\n    %s\n", f.name, lines[i])
			return nil
		}))
		if f.after != nil {
			f.after(ctx)
		}
		check(t, h.StartCompanion(ctx, h.A))
		check(t, h.eventually("recovery from: "+f.name, h.isWhole))
		h.isHealthy()
	}
	for name := range known {
		t.Errorf("there is no fault called %s", name)
	}
	t.Logf("what doctor says of each fault:\n%s", &report)
	h.leaseGone(ctx)
}

// isHealthy waits until doctor finds nothing wrong.
func (h *healing) isHealthy() {
	h.Helper()
	check(h.T, h.eventually("a healthy host to be found so", func(ctx context.Context) error {
		lines, err := doctor(ctx, h.A)
		if bad := text(lines, true); err == nil && bad != "" {
			err = fmt.Errorf("doctor says of a healthy host:\n%s", bad)
		}
		return err
	}))
}

// leaseGone has the coordinator forget the host.
func (h *healing) leaseGone(ctx context.Context) {
	h.Helper()
	check(h.T, h.Companions["a"].Stop(ctx))
	must[string](h.T)(h.B.Run(ctx, "dcos-overlayctl", "agents", "delete", "172.17.0.4", "--force", "--yes"))
	check(h.T, h.eventually("doctor to tell of a deleted agent", func(ctx context.Context) error {
		lines, err := doctor(ctx, h.A)
		if said := text(lines, true); err == nil && !strings.Contains(said, "fail lease at the coordinator: there is no agent 172.17.0.4") {
			err = fmt.Errorf("it says:\n%s", said)
		}
		return err
	}))
	must[string](h.T)(h.A.Run(ctx, "rm", "-r", "/var/lib/dcos-overlay"))
	lines := must[[]finding](h.T)(doctor(ctx, h.A))
	if said := text(lines, true); !strings.Contains(said, "fail lease: this host holds none") {
		h.Errorf("of a host without lease doctor says:\n%s", said)
	}
}

// TestPing asks all VTEPs of a cluster in which one host is cut off and
// another has a smaller MTU.
func TestPing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx := t.Context()
	// As DC/OS's masters, they are part of the overlays without containers.
	conf := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false, "mesos_bridge": false}}))
	narrow := must[*lab.Host](t)(s.Lab.AddHost(ctx, "narrow", netip.MustParseAddr("172.17.0.5")))
	for _, h := range []*lab.Host{s.Master, s.A, s.B, narrow} {
		s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, conf))
	}
	type result struct {
		Agent, VTEP, Problem string
		Received, MTU        int
	}
	ping := func(args ...string) (int, map[string]result, error) {
		r, err := s.A.Exec(ctx, lab.Command{Args: append([]string{"dcos-overlayctl", "ping", "-o", "json", "--wait", "500ms"}, args...)})
		if err != nil {
			return 0, nil, err
		}
		var out struct{ Results []result }
		if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil {
			return r.Code, nil, fmt.Errorf("ping %q answers %d, %q, %q: %w", args, r.Code, r.Stdout, r.Stderr, err)
		}
		byAgent := map[string]result{}
		for _, x := range out.Results {
			if had, ok := byAgent[x.Agent]; !ok || had.Problem == "" {
				byAgent[x.Agent] = x
			}
		}
		if len(out.Results) != 2*len(byAgent) {
			err = fmt.Errorf("%d answers of %d agents, which have two addresses each", len(out.Results), len(byAgent))
		}
		return r.Code, byAgent, err
	}
	within, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	check(t, lab.Until(within, "all to answer", func(context.Context) error {
		code, found, err := ping()
		if err == nil && (code != 0 || len(found) != 3 || found["172.17.0.5"].MTU != 1420) {
			err = fmt.Errorf("ping exited with %d: %+v", code, found)
		}
		return err
	}))

	must[string](t)(narrow.Run(ctx, "ip", "link", "set", "eth0", "mtu", "1300"))
	must[string](t)(s.B.Run(ctx, "ip", "link", "set", "eth0", "down"))
	// On a busy machine an answer comes later than half a second now and then.
	check(t, lab.Until(within, "ping to tell the hosts apart", func(context.Context) error {
		code, found, err := ping()
		if err != nil {
			return err
		}
		var errs []error
		// A packet may be four bytes longer than the MTU: they are for a VLAN tag.
		if r := found["172.17.0.5"]; r.MTU < 1250 || r.MTU > 1254 || !strings.Contains(r.Problem, "larger ones up to 1420 do not") {
			errs = append(errs, fmt.Errorf("over an underlay with an MTU of 1300: %+v", r))
		}
		if r := found["172.17.0.3"]; r.Received != 0 || !strings.Contains(r.Problem, "no answer") {
			errs = append(errs, fmt.Errorf("of a host that is cut off: %+v", r))
		}
		if r := found["172.17.0.2"]; r.Problem != "" || r.MTU != 1420 {
			errs = append(errs, fmt.Errorf("of a host that is well: %+v", r))
		}
		if code != 1 {
			errs = append(errs, fmt.Errorf("ping exited with %d", code))
		}
		return errors.Join(errs...)
	}))
	check(t, lab.Until(within, "ping of one that is well alone", func(context.Context) error {
		code, found, err := ping("172.17.0.2")
		if err == nil && (code != 0 || len(found) != 1) {
			err = fmt.Errorf("it exited with %d: %+v", code, found)
		}
		return err
	}))
	if r := must[lab.Result](t)(s.A.Exec(ctx, lab.Command{Args: []string{"dcos-overlayctl", "ping", "172.17.0.9"}})); r.Code != 2 || !strings.Contains(r.Stderr, "there is no agent 172.17.0.9") {
		t.Errorf("of nobody: %d, %q", r.Code, r.Stderr)
	}
	t.Logf("\n%s", must[lab.Result](t)(s.A.Exec(ctx, lab.Command{Args: []string{"dcos-overlayctl", "ping"}})).Stdout)
}
