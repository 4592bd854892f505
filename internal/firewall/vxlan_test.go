package firewall

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/network"
)

// sender is a host with a VXLAN device that sends all to the agent.
type sender struct {
	ns netns.NsHandle
	// link is the agent's device toward it, agent the agent's address there,
	// its own address is one more; vtep is that in the overlay.
	link, agent, self, vtep string
}

const (
	agentVTEP = "44.128.0.1"
	agentMAC  = "70:b3:d5:80:00:01"
)

// TestVXLANFromStrangers sends real VXLAN packets from two hosts, of which one
// is a peer, to an agent that holds its side of the underlay on both.
func TestVXLANFromStrangers(t *testing.T) {
	for _, u := range []struct {
		name           string
		filter         Filter
		length         string
		peer, stranger sender
	}{
		{"IPv4 underlay", FilterIPv4, "/24",
			sender{link: "up0", agent: "192.0.2.1", self: "192.0.2.2", vtep: "44.128.0.2"},
			sender{link: "up1", agent: "198.51.100.1", self: "198.51.100.2", vtep: "44.128.0.3"}},
		{"IPv6 underlay", FilterIPv6, "/64",
			sender{link: "up0", agent: "2001:db8:1::1", self: "2001:db8:1::2", vtep: "44.128.0.2"},
			sender{link: "up1", agent: "2001:db8:2::1", self: "2001:db8:2::2", vtep: "44.128.0.3"}},
	} {
		t.Run(u.name, func(t *testing.T) {
			eachFlavour(t, func(t *testing.T, h host) {
				agent, err := netns.Get()
				must(t, err)
				defer agent.Close()
				for _, s := range []*sender{&u.peer, &u.stranger} {
					inside(t, agent, func() (err error) {
						s.ns, err = netns.New()
						return err
					})
					defer s.ns.Close()
					site{agent: agent}.wire(t, s.link, s.ns)
					address(t, agent, s.link, s.agent+u.length)
					address(t, s.ns, "eth0", s.self+u.length)
					tunnel(t, s.ns, s.self, s.agent, s.vtep, "70:b3:d5:80:00:09")
				}
				tunnel(t, agent, u.peer.agent, "", agentVTEP, agentMAC)
				conn, err := net.ListenPacket("udp4", net.JoinHostPort(agentVTEP, "9999"))
				must(t, err)
				defer conn.Close()

				c := filtered(ConfigOf(testNetwork()), u.filter)
				for _, step := range []struct {
					filter Filter
					peers  []string
					want   string
				}{
					{FilterOff, nil, "sp"},
					{u.filter, []string{u.peer.self}, "p"},
					{FilterAsIs, nil, "p"},
					{u.filter, []string{u.peer.self, u.stranger.self}, "sp"}, // no stranger any more
					{u.filter, []string{u.peer.self}, "p"},
					{FilterOff, nil, "sp"},
				} {
					c.Filter = step.filter
					h.peers(c, step.peers...)
					h.apply(c)
					// The peer's packets come last: when they are here, those of
					// the stranger have been and gone.
					u.stranger.send(t, "s")
					u.peer.send(t, "p")
					if got := received(t, conn, step.want); got != step.want {
						t.Fatalf("with filter %d of %s there came packets of %q, want %q; the rules are\n%s",
							step.filter, step.peers, got, step.want, h.rules())
					}
				}
			})
		})
	}
}

// tunnel makes a VXLAN device as an agent's, whose packets go to remote.
func tunnel(t *testing.T, ns netns.NsHandle, local, remote, vtep, mac string) {
	t.Helper()
	hw, err := net.ParseMAC(mac)
	must(t, err)
	h := handle(t, ns)
	must(t, h.LinkAdd(&netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: network.VTEPName, HardwareAddr: hw},
		VxlanId:   network.VNI, Port: network.VXLANPort, SrcAddr: net.ParseIP(local), Group: net.ParseIP(remote),
	}))
	link := byName(t, h, network.VTEPName)
	must(t, h.LinkSetUp(link))
	address(t, ns, network.VTEPName, vtep+"/20")
	if remote == "" {
		return
	}
	agent, err := net.ParseMAC(agentMAC)
	must(t, err)
	must(t, h.NeighAdd(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, IP: net.ParseIP(agentVTEP), HardwareAddr: agent, State: unix.NUD_PERMANENT,
	}))
}

// packets is how many of each sender's there are.
const packets = 20

func (s sender) send(t *testing.T, text string) {
	t.Helper()
	inside(t, s.ns, func() error {
		conn, err := net.Dial("udp4", net.JoinHostPort(agentVTEP, "9999"))
		if err != nil {
			return err
		}
		defer conn.Close()
		for range packets {
			if _, err := conn.Write([]byte(text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// received waits for all packets of the senders that want names, and tells
// whose there were.
func received(t *testing.T, conn net.PacketConn, want string) string {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	count := map[string]int{}
	b := make([]byte, 10)
	for count["p"] < packets || count["s"] < packets && want == "sp" {
		n, _, err := conn.ReadFrom(b)
		if os.IsTimeout(err) {
			break
		}
		must(t, err)
		count[string(b[:n])]++
	}
	got := ""
	for _, who := range []string{"s", "p"} {
		if count[who] > 0 {
			got += who
		}
	}
	return got
}
