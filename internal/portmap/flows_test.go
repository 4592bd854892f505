package portmap

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// TestForgetFlows leaves nothing of what was led to the addresses, in either
// family and by whatever protocol, and all that goes elsewhere.
func TestForgetFlows(t *testing.T) {
	netnstest.Enter(t)
	const times = " --timeout 600 "
	for _, flow := range []string{
		"-p udp -s 192.0.2.1 -d 172.17.0.4 --sport 5555 --dport 31000 -r 10.64.0.2 -q 192.0.2.1 --reply-port-src 8080 --reply-port-dst 5555",
		"-p udp -s 192.0.2.1 -d 172.17.0.4 --sport 6666 --dport 31001 -r 10.64.0.3 -q 192.0.2.1 --reply-port-src 8080 --reply-port-dst 6666",
		"-p tcp --state ESTABLISHED -s 192.0.2.1 -d 172.17.0.4 --sport 7777 --dport 31000 -r 10.64.0.2 -q 192.0.2.1 --reply-port-src 8080 --reply-port-dst 7777",
		"-p udp -s 2001:db8::1 -d fd00:17::4 --sport 8888 --dport 31000 -r fd01:d::2 -q 2001:db8::1 --reply-port-src 8080 --reply-port-dst 8888",
		"-p udp -s 2001:db8::1 -d fd00:17::4 --sport 9999 --dport 31001 -r fd01:d::3 -q 2001:db8::1 --reply-port-src 8080 --reply-port-dst 9999",
	} {
		netnstest.Run(t, "conntrack -I"+times+flow)
	}
	if err := ForgetFlows([]netip.Addr{netip.MustParseAddr("10.64.0.2"), netip.MustParseAddr("fd01:d::2")}); err != nil {
		t.Fatal(err)
	}
	left := netnstest.Run(t, "conntrack -L -f ipv4") + netnstest.Run(t, "conntrack -L -f ipv6")
	for port, stays := range map[string]bool{"5555": false, "6666": true, "7777": false, "8888": false, "9999": true} {
		if is := strings.Contains(left, "sport="+port); is != stays {
			t.Errorf("the flow from port %s: it is there: %v, and should: %v:\n%s", port, is, stays, left)
		}
	}
	if err := ForgetFlows(nil); err != nil {
		t.Error(err)
	}
}
