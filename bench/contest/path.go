package contest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/bench/machine"
)

// path is a connection between containers on two hosts.
type path struct {
	from, to *machine.Place
	addr     netip.Addr
}

// pathTimeout bounds how long two agents may take to know of each other.
const pathTimeout = 10 * time.Second

// overlayPath is between two agents, with a companion each: its rules are
// those that a host has in use.
func (c *Contest) overlayPath() (path, error) {
	if err := c.coordinate(); err != nil {
		return path{}, err
	}
	var hosts, boxes []*machine.Place
	var addrs []netip.Addr
	for i, name := range []string{"left", "right"} {
		host, err := c.host(name, fmt.Sprintf("10.77.10.%d", i+1))
		if err != nil {
			return path{}, err
		}
		dir := filepath.Join(c.Machine.Dir, name)
		agent := filepath.Join(c.Machine.Dir, name+".json")
		conf := object(map[string]any{"master": "http://" + underlay + ":64001", "state_dir": dir + "/state", "run_dir": dir + "/run"})
		if err := os.WriteFile(agent, conf, 0o600); err != nil {
			return path{}, err
		}
		box, err := c.Machine.Add(name + "-box")
		if err != nil {
			return path{}, err
		}
		by := &contender{bin: "dcos-overlay", conf: overlayConf(map[string]any{"agentConfig": agent}), host: host}
		_, out, err := c.Machine.Exec(host, c.call(by, "ADD", box))
		if err != nil {
			return path{}, err
		}
		addr, err := address(out)
		if err != nil {
			return path{}, err
		}
		if err := c.Machine.Start(host, filepath.Join(c.Bin, "dcos-overlay-companion"), "--agent-config", agent); err != nil {
			return path{}, err
		}
		hosts, boxes, addrs = append(hosts, host), append(boxes, box), append(addrs, addr)
	}
	for i, host := range hosts {
		if err := c.companionKnows(host, addrs[1-i]); err != nil {
			return path{}, err
		}
	}
	return path{boxes[0], boxes[1], addrs[1]}, nil
}

// companionKnows waits until host's companion has set up what leads to another
// agent's container, and drops VXLAN from whoever is no agent.
func (c *Contest) companionKnows(host *machine.Place, other netip.Addr) error {
	deadline := time.Now().Add(pathTimeout)
	for {
		err := c.Machine.Command(host, "sh", "-ec", fmt.Sprintf("ip route get %s | grep -q vtep1024; iptables -w -S DCOS-OVERLAY-INPUT", other))
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// address is the container's in a plugin's result.
func address(result []byte) (netip.Addr, error) {
	var r struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(result, &r); err != nil || len(r.IPs) == 0 {
		return netip.Addr{}, fmt.Errorf("a result without address: %s", bytes.TrimSpace(result))
	}
	return r.IPs[0].Address.Addr(), nil
}

// handPath is between two hosts that have no more than it takes, and, with
// masq, the one rule by which containers reach the world.
func (c *Contest) handPath(prefix string, third int, masq bool) (path, error) {
	if err := c.coordinate(); err != nil { // for the underlay
		return path{}, err
	}
	var boxes []*machine.Place
	for i, name := range []string{prefix + "left", prefix + "right"} {
		own, other := i+1, 2-i
		host, err := c.host(name, fmt.Sprintf("10.77.%d.%d", third, own))
		if err != nil {
			return path{}, err
		}
		box, err := c.Machine.Add(name + "-box")
		if err != nil {
			return path{}, err
		}
		boxes = append(boxes, box)
		commands := fmt.Sprintf(`ip link add vx type vxlan id 7 dstport 4789 local 10.77.%[4]d.%[1]d nolearning
			ip link set vx address 02:00:00:00:00:%02[1]d mtu 1450 up
			ip addr add 10.66.0.%[1]d/24 dev vx
			ip neigh add 10.66.0.%[2]d lladdr 02:00:00:00:00:%02[2]d dev vx nud permanent
			bridge fdb append 02:00:00:00:00:%02[2]d dev vx dst 10.77.%[4]d.%[2]d
			ip link add hand type bridge
			ip addr add 10.67.%[1]d.1/24 dev hand
			ip link set hand mtu 1450 up
			ip route add 10.67.%[2]d.0/24 via 10.66.0.%[2]d dev vx onlink
			sysctl -qw net.ipv4.ip_forward=1
			ip link add port mtu 1450 type veth peer name eth0 mtu 1450 netns %[3]s
			ip link set port master hand up`, own, other, box.Path, third)
		if masq {
			commands += "\niptables -w -t nat -A POSTROUTING -s 10.67.0.0/16 ! -d 10.67.0.0/16 -j MASQUERADE"
		}
		for line := range strings.Lines(commands) {
			if err := c.Machine.Command(host, strings.Fields(line)...); err != nil {
				return path{}, err
			}
		}
		for _, line := range []string{
			fmt.Sprintf("ip addr add 10.67.%d.2/24 dev eth0", own), "ip link set eth0 up", fmt.Sprintf("ip route add default via 10.67.%d.1", own),
		} {
			if err := c.Machine.Command(box, strings.Fields(line)...); err != nil {
				return path{}, err
			}
		}
	}
	return path{boxes[0], boxes[1], netip.MustParseAddr("10.67.2.2")}, nil
}
