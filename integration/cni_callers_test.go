package integration

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// callerTimeout bounds a runtime's whole test, on a busy machine, too.
const callerTimeout = 2 * time.Minute

// callersList is a network as operators of containerd and podman write it.
const callersList = `{"cniVersion": "1.0.0", "name": "dcos", "plugins": [
	{"type": "dcos-overlay", "ipam": {"type": "dcos-ipam"}},
	{"type": "portmap", "capabilities": {"portMappings": true}},
	{"type": "firewall"},
	{"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]}`

// farServer is a container of host B that answers, and whose host has the way
// to A's containers.
func farServer(t *testing.T, s *scene.Scene) *lab.Container {
	t.Helper()
	ctx := t.Context()
	check(t, s.A.ShareCNI(ctx, []byte(callersList)))
	// A host without companion hears of others with each of its claims: B of A
	// by its first, A of B by its second.
	var far *lab.Container
	for _, c := range []struct {
		host    *lab.Host
		overlay string
	}{{s.A, "dcos"}, {s.B, "dcos"}, {s.A, "alt"}} {
		made := must[*lab.Container](t)(c.host.MesosContainer(ctx, lab.MesosTask{ID: "far", Conf: scene.CNI(c.overlay)}))
		if c.host == s.B {
			far = made
		} else {
			check(t, made.Delete(ctx))
		}
	}
	must[*lab.Process](t)(far.Serve(ctx, scene.Port))
	return far
}

// nothingOfACaller is nothingOf, with what the stock plugins of callersList
// make.
func nothingOfACaller(t *testing.T, h *lab.Host, addr netip.Addr) string {
	t.Helper()
	return nothingOf(t, h) + must[string](t)(h.Run(t.Context(), "sh", "-c", `iptables-save | grep -F -- "$0/"; true`, addr.String()))
}

// TestContainerd runs a container by containerd's ctr, which names no
// namespace when it detaches.
func TestContainerd(t *testing.T) {
	s := newCNIScene(t)
	ctx, cancel := context.WithTimeout(t.Context(), callerTimeout)
	defer cancel()
	h := s.A
	far := farServer(t, s)
	daemon := must[*lab.Process](t)(h.StartContainerd(ctx))
	port := strconv.Itoa(scene.Port)
	run := must[*lab.Process](t)(h.CtrRun(ctx, "c1", "sh", "-ec", "nc -w 5 "+far.IP4.String()+" "+port+" </dev/null; exec probe serve :"+port))
	check(t, run.WaitLog(ctx, "serving\n"))
	line, _, _ := strings.Cut(run.Log(), "\n")
	seen, err := netip.ParseAddrPort(line)
	if err != nil || !strings.Contains(strings.Join(reservedOn(t, h), " "), seen.Addr().String()) {
		t.Fatalf("seen as %s, and reserved are %q: %v", line, reservedOn(t, h), err)
	}
	if back := must[netip.AddrPort](t)(far.Dial(ctx, netip.AddrPortFrom(seen.Addr(), scene.Port))); back.Addr() != far.IP4 {
		t.Errorf("the container sees %s, not %s", back, far.IP4)
	}
	_, err = h.Run(ctx, "ctr", "task", "kill", "-s", "SIGKILL", "c1")
	check(t, err)
	select {
	case <-run.Done():
	case <-ctx.Done():
		t.Fatalf("ctr does not end; it says:\n%s", run.Log())
	}
	if text := run.Log(); strings.Contains(text, "level=error") {
		t.Errorf("ctr says:\n%s", text)
	}
	if left := nothingOfACaller(t, h, seen.Addr()); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	check(t, daemon.Stop(ctx))
}

// TestPodman runs containers by podman and its CNI backend: one as it comes,
// one with an address and a MAC of its choice, and a port. From Debian 13 on,
// whose podman is built without CNI, it is Debian 12's: scripts/podman-cni.sh.
func TestPodman(t *testing.T) {
	s := newCNIScene(t)
	ctx, cancel := context.WithTimeout(t.Context(), callerTimeout)
	defer cancel()
	h := s.A
	far := farServer(t, s)
	check(t, h.SetUpPodman(ctx))
	const mac = "02:00:5e:10:00:01"
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"plain", nil, ""},
		{"asked", []string{"--ip", "9.0.0.77", "--mac-address", mac, "-p", "31000:8080"}, "9.0.0.77"},
	} {
		c := must[*lab.Container](t)(h.PodmanContainer(ctx, tt.name, "dcos", tt.args...))
		if tt.want != "" && c.IP4.String() != tt.want {
			t.Errorf("%s: got %s", tt.name, c.IP4)
		}
		out := must[string](t)(h.Run(ctx, "podman", "exec", tt.name, "sh", "-c", fmt.Sprintf("nc -w 5 %s %d </dev/null", far.IP4, scene.Port)))
		if seen, err := netip.ParseAddrPort(strings.TrimSpace(out)); err != nil || seen.Addr() != c.IP4 {
			t.Errorf("%s: seen as %q, not %s", tt.name, out, c.IP4)
		}
		must[*lab.Process](t)(c.Serve(ctx, scene.Port))
		if back := must[netip.AddrPort](t)(far.Dial(ctx, serverOf(c))); back.Addr() != far.IP4 {
			t.Errorf("%s: the container sees %s, not %s", tt.name, back, far.IP4)
		}
		if tt.want != "" {
			if out := must[string](t)(c.Run(ctx, "ip", "link", "show", "eth0")); !strings.Contains(out, mac) {
				t.Errorf("%s is not in %s", mac, out)
			}
			must[netip.AddrPort](t)(s.Lab.Outside.Dial(ctx, netip.AddrPortFrom(h.Addr, 31000)))
		}
		check(t, c.Delete(ctx))
		if left := nothingOfACaller(t, h, c.IP4); left != "" {
			t.Errorf("%s: left behind:\n%s", tt.name, left)
		}
	}
}
