package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// TestHostRoutes: what the host routes by itself is reported, and what clashes
// is said in its status.
func TestHostRoutes(t *testing.T) {
	w := newWorld(t)
	defer w.connect()()
	netnstest.Run(t, "ip route add 10.20.0.0/16 via 10.0.0.254")
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	reported := func() string { return fmt.Sprint((<-w.reporter.latest).req.HostRoutes) }
	if got := reported(); got != "[10.0.0.0/24 10.20.0.0/16]" {
		t.Errorf("reported are %s", got)
	}
	if s := w.Status(); len(s.Warnings) != 0 {
		t.Errorf("there are the warnings %q", s.Warnings)
	}
	netnstest.Run(t, "ip route add 9.5.0.0/16 via 10.0.0.254")
	w.routesAt = time.Time{}
	w.passes("with a clash", "dcos:mrdc dcos6:mrdc")
	if got := reported(); got != "[9.5.0.0/16 10.0.0.0/24 10.20.0.0/16]" {
		t.Errorf("reported are %s", got)
	}
	if s := w.Status(); len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "the route 9.5.0.0/16 dev eth0 of this host overlaps overlay dcos (9.0.0.0/8)") {
		t.Errorf("there are the warnings %q", s.Warnings)
	}
}

// TestBridgesOff: what a host is to have no longer goes, once it is unused, and
// comes back.
func TestBridgesOff(t *testing.T) {
	w := newWorld(t)
	defer w.connect()()
	w.passes("at first", "dcos:mrdc dcos6:mrdc")
	netnstest.Run(t, "ip link add dov1 type veth peer name inside")
	netnstest.Run(t, "ip link set dov1 master m-dcos")
	w.engine.busy["dcos6"] = true
	turn := func(on bool) {
		w.self.Config.MesosBridge, w.self.Config.DockerBridge = on, on
		w.Host.Conf.Network = w.self.Config
		w.tell()
	}
	turn(false)
	w.passes("off, with containers on some", "dcos:mr dcos6:rd")
	w.engine.busy["dcos6"] = false
	netnstest.Run(t, "ip link del dov1")
	w.passes("off", "dcos:r dcos6:r")
	w.passes("off, again", "dcos:r dcos6:r")
	if n := w.Status().Last.Repairs; n != 0 {
		t.Errorf("it still repairs %d things", n)
	}
	turn(true)
	w.passes("on", "dcos:mrdc dcos6:mrdc")
}

func TestTooLong(t *testing.T) {
	w := newWorld(t)
	w.Host.Conf.Network.OverlayMTU = 1450
	w.passes("with all that fits", "dcos:mrdc dcos6:mrdc")
	if s := w.Status(); len(s.Warnings) != 0 {
		t.Errorf("there are the warnings %q", s.Warnings)
	}
	w.Host.Conf.Network.OverlayMTU = 9000
	w.passes("with more than fits", "dcos:mrdc dcos6:mrdc")
	if s := w.Status(); len(s.Warnings) != 1 || !strings.HasPrefix(s.Warnings[0], "overlay_mtu is 9000, and eth0, whose MTU is 1500, takes 1450 inside VXLAN") {
		t.Errorf("there are the warnings %q", s.Warnings)
	}
}
