package integration

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// TestDoctorFixed stops the companion of a host with a container that has a
// fixed address on an isolated overlay, and harms what there is for the two:
// doctor names each fault, and what to do.
func TestDoctorFixed(t *testing.T) {
	t.Parallel()
	f := newFixing(t)
	ctx := t.Context()
	must[string](t)(f.A.Run(ctx, "dcos-overlayctl", "overlay", "set", "fixed", "--isolated"))
	database := must[*lab.Container](t)(f.A.MesosContainer(ctx, fixedTask("database", nil, netip.MustParseAddr("10.60.255.10"))))
	conf := must[[]byte](t)(f.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}}))
	says := func(when string, ok func(said string) bool) {
		t.Helper()
		f.until("doctor "+when, func(ctx context.Context) error {
			lines, err := doctor(ctx, f.A)
			if said := text(lines, true); err == nil && !ok(said) {
				err = fmt.Errorf("it says:\n%s", said)
			}
			return err
		})
	}
	says("of a healthy host", func(said string) bool { return said == "" })
	t.Logf("a healthy host:\n%s", text(must[[]finding](t)(doctor(ctx, f.A)), false))

	const start = "systemctl start dcos-overlay-companion"
	for _, fault := range []struct{ name, do, text, remedy string }{
		{"the address's route deleted", `ip route del 10.60.255.10 dev m-fixed`, "m-fixed: it lacks the route to 10.60.255.10", start},
		{"a route to nobody", `ip route add 10.60.255.99 dev m-fixed proto 44 metric 1`, "m-fixed: it has a stray route to 10.60.255.99", start},
		{"redirects turned on", `sysctl -w net.ipv4.conf.m-fixed.send_redirects=1`, "net.ipv4.conf.m-fixed.send_redirects is 1, not 0", start},
		{"isolation flushed", `iptables -w -t mangle -F DCOS-OVERLAY-ISOLATE`, "iptables mangle: chain DCOS-OVERLAY-ISOLATE has other rules", "look for who changes iptables"},
		{"isolation passed by", `iptables -w -t mangle -D FORWARD -j DCOS-OVERLAY-ISOLATE`, "the jump from FORWARD to DCOS-OVERLAY-ISOLATE is missing", "look for who changes iptables"},
		{"the coordinator's record lost", `curl -fsS -X DELETE "http://172.17.0.2:64001/v1/agents/172.17.0.4/addresses/fixed/10.60.255.10?container=` + database.ID + `&ifname=eth0"`,
			"on disk there is VTEP", "the companion takes the coordinator's word"},
		{"the lease's word lost", `sed -i 's/10[.]60[.]255[.]10"/10.60.255.11"/' /var/lib/dcos-overlay/lease.json`,
			"container " + database.ID + " has 10.60.255.10 of overlay fixed, which this agent does not hold", "stop the container if the address is another agent's by now"},
	} {
		check(t, f.Companions["a"].Stop(ctx))
		says("to miss the companion alone before: "+fault.name, func(said string) bool {
			return strings.HasPrefix(said, "warn companion: none runs") && strings.Count(said, "\n") == 1
		})
		must[string](t)(f.A.Run(ctx, "sh", "-ec", fault.do))
		says("to tell of: "+fault.name, func(said string) bool {
			for line := range strings.Lines(said) {
				if strings.HasPrefix(line, "fail") && strings.Contains(line, fault.text) && strings.Contains(line, fault.remedy) {
					t.Logf("%s\n    %s", fault.name, line)
					return true
				}
			}
			return false
		})
		f.Companions["a"] = must[*lab.Process](t)(f.A.StartCompanion(ctx, conf, "--interval", "1s"))
		says("to be content after: "+fault.name, func(said string) bool { return said == "" })
	}
}
