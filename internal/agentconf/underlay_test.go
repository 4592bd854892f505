package agentconf

import (
	"net"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// host makes a network namespace with loopback and the devices eth0, which has
// the default routes of those families that it has addresses of, and eth1. The
// test's thread stays in it, and ends with the test.
func host(t *testing.T, eth0, eth1 []string) {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make a network namespace (the tests run as root): %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	addLink(t, "eth0", eth0)
	addLink(t, "eth1", eth1)
}

func addLink(t *testing.T, name string, addrs []string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	// A veth has a carrier as long as its peer is up.
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: name + "-peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{link.PeerName, name} {
		l, err := netlink.LinkByName(end)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
		link.Index = l.Attrs().Index
	}
	for _, s := range addrs {
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		// An address under duplicate address detection is no source yet.
		if addr.IP.To4() == nil {
			addr.Flags = 0x02 // IFA_F_NODAD of linux/if_addr.h
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			t.Fatal(err)
		}
		if name != "eth0" || addr.IP.IsLinkLocalUnicast() {
			continue
		}
		all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
		if addr.IP.To4() == nil {
			all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Index, Dst: all}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAgentIP(t *testing.T) {
	both0 := []string{"fd10::117/64", "10.10.0.117/16"}
	both1 := []string{"169.254.7.7/16", "10.20.0.1/16", "10.20.0.2/16", "fd20::1/64"}
	tests := []struct {
		name       string
		eth0, eth1 []string
		config     string
		want       string
	}{
		{"given", both0, both1, `{"ip": "192.168.7.7"}`, "192.168.7.7"},
		{"given loopback", both0, both1, `{"ip": "127.0.0.1"}`, "127.0.0.1"},
		{"interface with both families", both0, both1, `{"interface": "eth0"}`, "10.10.0.117"},
		{"interface with a link-local address first", both0, both1, `{"interface": "eth1"}`, "10.20.0.1"},
		{"interface with IPv6 alone", both0, []string{"fe80::7/64", "fd20::1/64"}, `{"interface": "eth1"}`, "fd20::1"},
		{"range", both0, both1, `{"ip_cidr": "10.20.0.2/32"}`, "10.20.0.2"},
		{"range of IPv6", both0, both1, `{"ip_cidr": "fd20::/16"}`, "fd20::1"},
		{"range that loopback is in", both0, both1, `{"ip_cidr": "0.0.0.0/0"}`, "10.10.0.117"},
		{"toward the coordinator", both0, both1, `{"master": "10.20.0.9:64001"}`, "10.20.0.1"},
		{"toward a far coordinator", both0, both1, `{"master": "https://8.8.8.8"}`, "10.10.0.117"},
		{"toward a coordinator of IPv6", both0, both1, `{"master": "fd20::9"}`, "fd20::1"},
		{"coordinator on an address of this machine", both0, both1, `{"master": "10.20.0.1"}`, "10.20.0.1"},
		{"coordinator on loopback", both0, both1, `{"master": "127.0.0.1"}`, "10.10.0.117"},
		{"coordinator on loopback of IPv6", both0, both1, `{"master": "::1"}`, "10.10.0.117"},
		{"coordinator on loopback by default", both0, both1, `{}`, "10.10.0.117"},
		{"coordinator on loopback, IPv6 alone", []string{"fd10::117/64"}, nil, `{}`, "fd10::117"},
		{"first coordinator without a route", nil, both1, `{"master": ["8.8.8.8", "10.20.0.9"]}`, "10.20.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host(t, tt.eth0, tt.eth1)
			c, err := Parse([]byte(tt.config))
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.AgentIP()
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAgentIPErrors(t *testing.T) {
	tests := []struct{ name, config, want string }{
		{"no such interface", `{"interface": "eth9"}`,
			"find the agent's address on interface eth9: route ip+net: no such network interface"},
		{"interface without addresses", `{"interface": "eth0"}`,
			`find the agent's address: interface eth0 has no global address; give it one, or set "ip" or "ip_cidr"`},
		{"loopback as the interface", `{"interface": "lo"}`,
			`find the agent's address: interface lo has no global address; give it one, or set "ip" or "ip_cidr"`},
		{"range without addresses", `{"ip_cidr": "127.0.0.0/8"}`,
			`find the agent's address: this machine has none in 127.0.0.0/8; correct "ip_cidr"`},
		{"coordinator on loopback, no routes", `{}`,
			`find the agent's address: find the route to [2001:db8::1]:9: dial udp [2001:db8::1]:9: connect: network is unreachable; set "ip", "interface" or "ip_cidr" in /etc/dcos-overlay/agent.json`},
		{"coordinators without routes", `{"master": ["10.0.0.1", "10.0.0.2"]}`,
			`find the agent's address: find the route to 10.0.0.1:64001: dial udp 10.0.0.1:64001: connect: network is unreachable; set "ip", "interface" or "ip_cidr" in /etc/dcos-overlay/agent.json`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host(t, nil, nil)
			c, err := Parse([]byte(tt.config))
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.AgentIP()
			if err == nil {
				t.Fatalf("got %s and no error", got)
			}
			if err.Error() != tt.want {
				t.Errorf("got\n%s\nwant\n%s", err, tt.want)
			}
		})
	}
}
