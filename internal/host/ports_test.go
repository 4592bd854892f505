package host

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// TestPorts: containers whose bridge was deleted get back, but for those with
// an address that is not this agent's by now.
func TestPorts(t *testing.T) {
	h := newHost(t, false)
	h.Conf.RunDir = t.TempDir()
	prefix := netip.MustParsePrefix
	held := &agentstate.Held{Agent: lease.Agent{
		IP: netip.MustParseAddr("127.0.0.1"), Config: lease.DefaultNetworkConfig(),
		Overlays: []lease.Overlay{
			{
				Name: "dcos", Subnets: []netip.Prefix{prefix("9.0.0.0/24")},
				Addresses: []lease.Address{{IP: netip.MustParseAddr("9.0.255.4"), Container: "fixed", Interface: "eth0"}},
			},
			{Name: "new", Subnets: []netip.Prefix{prefix("10.0.0.0/24")}},
		},
	}}
	ns := must[sandbox.ID](t)(sandbox.Identify("/proc/self/ns/net"))
	for _, c := range []struct{ overlay, id, addr string }{
		{"dcos", "mine", "9.0.0.5"},
		{"dcos", "other", "9.0.7.5"}, // of a subnet that is leased no more
		{"dcos", "fixed", "9.0.255.4"},
		{"dcos", "gone", "9.0.255.5"}, // a fixed one that went to another agent
		{"new", "early", "10.0.0.5"},
	} {
		pool := ipam.Pool{Dir: h.Conf.DataDir(), Overlay: c.overlay, V4: lease.Side{netip.PrefixFrom(netip.MustParseAddr(c.addr), 24).Masked()}}
		_, err := pool.Reserve(t.Context(), ipam.Owner{ContainerID: c.id, IfName: "eth0"}, &ipam.Home{Netns: ns, HostIf: "dov" + c.id}, ips(c.addr))
		if err != nil {
			t.Fatal(err)
		}
		netnstest.Run(t, "ip link add dov"+c.id+" type veth peer name in-"+c.id)
	}
	netnstest.Run(t, "ip link add dovnobody type veth peer name in-nobody")
	netnstest.Run(t, "ip link add m-dcos type bridge")
	netnstest.Run(t, "ip link add m-new type bridge")
	for _, inside := range []string{"mine", "other", "fixed", "gone", "early", "nobody"} {
		netnstest.Run(t, "ip link add b-"+inside+" type bridge")
		netnstest.Run(t, "ip link set in-"+inside+" master b-"+inside)
	}
	if err := h.Dir.MarkReady("dcos"); err != nil { // m-new was never there before
		t.Fatal(err)
	}
	k := must[*kernel.Kernel](t)(kernel.Open())
	defer k.Close()
	for round, want := range []int{1, 0} {
		done := Outcome{}
		h.ports(t.Context(), k, held, &done)
		if len(done.Repairs) != want || len(done.Failed)+len(done.Warnings) > 0 {
			t.Errorf("round %d: %+v", round, done)
		}
		var on []string
		for line := range strings.Lines(netnstest.Run(t, "ip -o link show type veth")) {
			if name := strings.Split(strings.Fields(line)[1], "@")[0]; strings.Contains(line, "master m-") {
				on = append(on, name)
			}
		}
		slices.Sort(on)
		if want := []string{"dovfixed", "dovmine"}; !slices.Equal(on, want) {
			t.Errorf("round %d: on bridges are %q, not %q", round, on, want)
		}
	}
	done := Outcome{}
	netnstest.Run(t, "ip link del m-dcos")
	if h.ports(t.Context(), k, held, &done); done.Failed["dcos"] == nil {
		t.Error("nobody hears that there is no bridge")
	}
}

// must ends the test on an error.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
