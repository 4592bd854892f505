package kernel

import (
	"context"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/network"
)

// TestCheckDevices harms a VTEP and a bridge in many ways. A check must name
// each, change nothing, and agree with the repair in whether anything is wrong.
func TestCheckDevices(t *testing.T) {
	for _, tt := range []struct{ name, harm, want string }{
		{"all right", "ip link show", ""},
		{"VTEP gone", "ip link del vtep1024", "vtep1024: it is missing"},
		{"VNI", "ip link del vtep1024; ip link add vtep1024 type vxlan id 7 dstport 64000 local 192.0.2.1 nolearning", "vtep1024: it has VNI 7, not 1024"},
		{"MAC", "ip link set vtep1024 address 02:00:00:00:00:07", "vtep1024: its MAC is 02:00:00:00:00:07, not 70:b3:d5:80:00:01"},
		{"MTU", "ip link set vtep1024 mtu 1300", "vtep1024: its MTU is 1300, not 1450"},
		{"down", "ip link set vtep1024 down", "vtep1024: it is down\nvtep1024: it lacks the address fd01:a::1/64"},
		{"address", "ip addr del 44.128.0.1/16 dev vtep1024", "vtep1024: it lacks the address 44.128.0.1/16"},
		{"another's address", "ip addr add 44.128.0.9/16 dev vtep1024", "vtep1024: it has the address 44.128.0.9/16, which is not its own"},
		{"route to the range", "ip route flush dev vtep1024", "vtep1024: it lacks the route to its own range 44.128.0.0/16"},
		{"router advertisements", "sysctl -qw net.ipv6.conf.vtep1024.accept_ra=1", "vtep1024: it believes router advertisements (accept_ra is 1, not 0)"},
		{"tx offload", "ip link del vtep1024; ip link add vtep1024 mtu 1450 address 70:b3:d5:80:00:01 type vxlan id 1024 dstport 64000 local 192.0.2.1 nolearning; " +
			"ip addr add 44.128.0.1/16 dev vtep1024; ip addr add fd01:a::1/64 dev vtep1024 nodad; sysctl -qw net.ipv6.conf.vtep1024.accept_ra=0; ip link set vtep1024 addrgenmode none; ip link set vtep1024 up",
			"vtep1024: tx checksum offload is on"},
		{"port taken", "ip link del vtep1024; ip link add vx-other type vxlan id 77 dstport 64000 local 192.0.2.1; ip link set vx-other up",
			"vtep1024: it is missing\nvtep1024: UDP port 64000 is taken by the VXLAN device vx-other (VNI 77): ip link delete vx-other"},
		{"bridge gone", "ip link del m-dcos", "m-dcos: it is missing"},
		{"no bridge", "ip link del m-dcos; ip link add m-dcos type veth peer name peer1", "m-dcos: it is of kind veth, not bridge"},
		{"gateway", "ip addr del 9.0.0.1/25 dev m-dcos", "m-dcos: it lacks the address 9.0.0.1/25"},
		{"forwarding", "sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward is 0, not 1"},
		{"forwarding of IPv6", "sysctl -qw net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.all.forwarding is 0, not 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKernel(t)
			v, b := sampleVTEP(), sampleBridge()
			v.TxOffload = false
			repair := func() (out []string) {
				for _, f := range []func() ([]string, error){
					func() ([]string, error) { return k.EnsureVTEP(t.Context(), v) },
					func() ([]string, error) { return k.EnsureBridge(t.Context(), b) },
					func() ([]string, error) { return k.EnsureForwarding(t.Context(), true, true) },
				} {
					done, _ := f() // such as a port that another has
					out = append(out, done...)
				}
				return out
			}
			check := func() string {
				var out []string
				for _, f := range []func(context.Context) ([]string, error){
					func(ctx context.Context) ([]string, error) { return k.CheckVTEP(ctx, v) },
					func(ctx context.Context) ([]string, error) { return k.CheckBridge(ctx, b) },
					func(ctx context.Context) ([]string, error) { return k.CheckForwarding(ctx, true, true) },
				} {
					found, err := f(t.Context())
					if err != nil {
						t.Error(err)
					}
					out = append(out, found...)
				}
				return strings.Join(out, "\n")
			}
			repair()
			for _, line := range strings.Split(tt.harm, ";") {
				command(t, strings.TrimSpace(line))
			}
			for range 2 {
				if got := check(); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
			}
			done := repair()
			if silent := tt.name == "router advertisements" || tt.name == "no bridge"; (len(done) > 0) != (tt.want != "") && !silent {
				t.Errorf("the check said %q, and the repair %q", tt.want, done)
			}
			if got := check(); got != "" && tt.name != "port taken" && tt.name != "no bridge" {
				t.Errorf("after the repair the check says %q", got)
			}
		})
	}
}

// TestCheckPeers says what SyncPeers then does.
func TestCheckPeers(t *testing.T) {
	k := kernelWithVTEP(t)
	want := peersOf(agents(3))
	for _, step := range []dataplane.Peers{want, peersOf(agents(2)), want} {
		said, err := k.CheckPeers(t.Context(), network.VTEPName, step)
		if err != nil {
			t.Fatal(err)
		}
		did := syncPeers(t, k, step)
		if said.Changes.String() != did.Changes.String() || !said.Changed() {
			t.Errorf("the check said\n%s\nand this was done:\n%s", said.Changes, did.Changes)
		}
		if again, err := k.CheckPeers(t.Context(), network.VTEPName, step); err != nil || again.Changed() {
			t.Errorf("after that: %v, %v", again, err)
		}
	}
	if _, err := k.CheckPeers(t.Context(), "lo", want); err == nil {
		t.Error("loopback is taken for a VTEP")
	}
}
