package contest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/bench/machine"
	"github.com/dcos/dcos-overlay/bench/report"
	"github.com/dcos/dcos-overlay/bench/stat"
)

const (
	// streamRounds is how often each data path is measured at least, since
	// one differs more from itself than ADDs do.
	streamRounds = 10
	// chunk is what is written at a time, in bytes.
	chunk = 128 << 10
	// pings are the round trips of one measurement.
	pings = 2000
	// streamSlack is what a measurement gets beyond its time.
	streamSlack = 20 * time.Second
)

// path is a connection between containers on two hosts.
type path struct {
	from, to *machine.Place
	addr     netip.Addr
}

// Data measures a TCP connection between containers on two hosts, over the
// overlay and over a VXLAN that is made by hand, on hosts that have nothing
// else, and on hosts that masquerade: that rule alone makes the kernel track
// connections.
func (c *Contest) Data() ([]report.Row, error) {
	c.Log("TCP between two hosts")
	ours, err := c.overlayPath()
	if err != nil {
		return nil, err
	}
	hand, err := c.handPath("h", 11, false)
	if err != nil {
		return nil, err
	}
	masq, err := c.handPath("m", 12, true)
	if err != nil {
		return nil, err
	}
	rounds := max(c.Slow/3, streamRounds)
	measure := func(what func(*Contest, path) (float64, error)) ([]stat.Sample, error) {
		return c.duel(rounds,
			func(int) (float64, error) { return what(c, ours) },
			func(int) (float64, error) { return what(c, hand) },
			func(int) (float64, error) { return what(c, masq) })
	}
	through, err := measure((*Contest).throughput)
	if err != nil {
		return nil, err
	}
	trip, err := measure((*Contest).roundTrip)
	if err != nil {
		return nil, err
	}
	rows := func(what, unit string, s []stat.Sample, goal float64, atLeast bool) []report.Row {
		row := report.Row{Part: "stream", What: what + ", container to container across hosts", Ours: s[0].Sum(), Against: "hand-made VXLAN", Peer: s[1].Sum(),
			Ratio: stat.Ratios(s[0], s[1]).Sum(), Unit: unit, Goal: goal, AtLeast: atLeast}
		same := row
		same.Against, same.Peer, same.Ratio, same.Goal = "the same, masquerading", s[2].Sum(), stat.Ratios(s[0], s[2]).Sum(), 0
		return []report.Row{row, same}
	}
	return append(rows("TCP throughput", "Gbit/s", through, 0.98, true), rows("TCP round trip", "µs", trip, 1.02, false)...), nil
}

// overlayPath is between two agents.
func (c *Contest) overlayPath() (path, error) {
	if err := c.coordinate(); err != nil {
		return path{}, err
	}
	var boxes []*machine.Place
	var addrs []netip.Addr
	var hosts []*machine.Place
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
		hosts, boxes, addrs = append(hosts, host), append(boxes, box), append(addrs, addr)
	}
	// The left host was there first and has no companion to tell it of the
	// right one, so it is made anew as a first container would.
	if err := os.RemoveAll(filepath.Join(c.Machine.Dir, "left", "run", "ready")); err != nil {
		return path{}, err
	}
	warm, err := c.Machine.Add("left-again")
	if err != nil {
		return path{}, err
	}
	agent := filepath.Join(c.Machine.Dir, "left.json")
	_, err = c.add(&contender{bin: "dcos-overlay", conf: overlayConf(map[string]any{"agentConfig": agent}), host: hosts[0]}, warm)
	return path{boxes[0], boxes[1], addrs[1]}, err
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

// connect makes a connection by p. Sockets are of the network in which they
// are made, whichever thread uses them then.
func (c *Contest) connect(p path) (from, to net.Conn, err error) {
	var l net.Listener
	err = c.Machine.In(p.to, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(p.addr, 0).String())
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	err = c.Machine.In(p.from, func() (err error) {
		from, err = net.DialTimeout("tcp", l.Addr().String(), streamSlack)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	to, err = l.Accept()
	if err != nil {
		return nil, nil, errors.Join(err, from.Close())
	}
	end := time.Now().Add(c.Stream + streamSlack)
	return from, to, errors.Join(from.SetDeadline(end), to.SetDeadline(end))
}

// throughput is what arrives, in Gbit/s.
func (c *Contest) throughput(p path) (float64, error) {
	from, to, err := c.connect(p)
	if err != nil {
		return 0, err
	}
	defer to.Close()
	sent := make(chan error, 1)
	go func() {
		defer from.Close()
		data := make([]byte, chunk)
		for end := time.Now().Add(c.Stream); time.Now().Before(end); {
			if _, err := from.Write(data); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	began := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{to}, make([]byte, chunk))
	took := time.Since(began)
	return float64(n) * 8 / 1e9 / took.Seconds(), errors.Join(err, <-sent)
}

// roundTrip is that of one byte, in microseconds, the mean of many.
func (c *Contest) roundTrip(p path) (float64, error) {
	from, to, err := c.connect(p)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	echoed := make(chan error, 1)
	go func() {
		defer to.Close()
		_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{to}, make([]byte, 1))
		echoed <- err
	}()
	one := make([]byte, 1)
	began := time.Now()
	for range pings {
		if _, err := from.Write(one); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(from, one); err != nil {
			return 0, err
		}
	}
	took := time.Since(began)
	return float64(took.Nanoseconds()) / 1e3 / pings, errors.Join(from.Close(), <-echoed)
}
