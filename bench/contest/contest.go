// Package contest are the measurements. Each sets our programs against others
// that do the same, in turns on one machine, and answers with rows of a table.
package contest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/bench/machine"
	"github.com/dcos/dcos-overlay/bench/report"
	"github.com/dcos/dcos-overlay/bench/stat"
)

// Contest is what all measurements need.
type Contest struct {
	Machine *machine.Machine
	// Bin has the programs, ours and the others'; FlannelProgram may be missing.
	Bin string
	// Rounds is how often each thing is measured that takes milliseconds, and
	// Slow how often what takes longer.
	Rounds, Slow int
	// Crowd is how many containers start at once.
	Crowd int
	// Peers is how many other agents a host is told of.
	Peers int
	// Chunks are what one measurement of throughput sends, of 128 KiB each.
	Chunks int
	// Log gets a line when a part is begun.
	Log func(string)

	coordinator bool
	// network is the coordinator's configuration, masterJSON if it is empty.
	network string
}

// Part is one of the measurements, by the name that --only takes.
type Part struct {
	Name string
	Run  func(*Contest) ([]report.Row, error)
}

// Parts are all measurements, in the order of the table.
func Parts() []Part {
	return []Part{
		{"attach", (*Contest).Attach},
		{"flannel", (*Contest).Flannel},
		{"ports", (*Contest).Ports},
		{"features", (*Contest).Features},
		{"parallel", (*Contest).Parallel},
		{"first", (*Contest).First},
		{"ipam", (*Contest).IPAM},
		{"claims", (*Contest).Claims},
		{"peers", (*Contest).Program},
		{"stream", (*Contest).Data},
	}
}

const (
	// underlay is the address of the machine's own network, where the
	// coordinator is.
	underlay = "10.77.0.254"
	// startTimeout bounds how long the coordinator may take to be ready.
	startTimeout = 30 * time.Second
	// settle is how long the kernel gets for what it does behind a program's
	// back, before the next one is measured. It decides nothing but the noise.
	settle = 3 * time.Millisecond
)

// masterJSON has room for many agents.
const masterJSON = `{"vtep_subnet": "44.128.0.0/16", "vtep_mac_oui": "70:B3:D5:00:00:00",
	"overlays": [{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 24}]}`

// coordinate starts the coordinator, once, on a bridge that hosts can be
// plugged into.
func (c *Contest) coordinate() error {
	if c.coordinator {
		return nil
	}
	m := c.Machine
	for _, args := range []string{
		// With an address of its own: it would else take the least of its
		// ports', and change it under hosts that know the old one.
		"ip link add underlay address 02:00:00:00:00:01 type bridge",
		"ip addr add " + underlay + "/16 dev underlay",
		"ip link set underlay up",
	} {
		if err := m.Command(m.Home, strings.Fields(args)...); err != nil {
			return err
		}
	}
	if c.network == "" {
		c.network = masterJSON
	}
	conf := filepath.Join(m.Dir, "master.json")
	if err := os.WriteFile(conf, []byte(c.network), 0o600); err != nil {
		return err
	}
	err := m.Start(m.Home, filepath.Join(c.Bin, "dcos-overlay-coordinator"), "--config", conf, "--data-dir", filepath.Join(m.Dir, "etcd"))
	if err != nil {
		return err
	}
	c.coordinator = true
	return errors.Join(c.await(), c.agentFile())
}

// await asks the coordinator until it is ready. The connection is made here,
// for only this thread is in the machine's network.
func (c *Contest) await() error {
	deadline := time.Now().Add(startTimeout)
	for {
		err := ready()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func ready() error {
	conn, err := net.DialTimeout("tcp", underlay+":64001", time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	req, err := http.NewRequest(http.MethodGet, "http://coordinator/readyz", nil)
	if err != nil {
		return err
	}
	if err := errors.Join(conn.SetDeadline(time.Now().Add(time.Second)), req.Write(conn)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the coordinator is not ready: %s", resp.Status)
	}
	return nil
}

// host makes a host on the underlay, with the files of an agent of its own.
func (c *Contest) host(name, ip string) (*machine.Place, error) {
	m := c.Machine
	h, err := m.Add(name)
	if err != nil {
		return nil, err
	}
	for _, args := range []string{
		"ip link add " + name + " type veth peer name eth0 netns " + h.Path,
		"ip link set " + name + " master underlay up",
	} {
		if err := m.Command(m.Home, strings.Fields(args)...); err != nil {
			return nil, err
		}
	}
	for _, args := range []string{
		"ip addr add " + ip + "/16 dev eth0",
		"ip link set eth0 up",
		"ip route add default via " + underlay,
	} {
		if err := m.Command(h, strings.Fields(args)...); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// duel measures two or more things in turns; each returns what it took, in its
// unit. The first is ours.
func (c *Contest) duel(rounds int, sides ...func(round int) (float64, error)) ([]stat.Sample, error) {
	out := make([]stat.Sample, len(sides))
	for round := range rounds {
		for i := range sides {
			// Whoever comes after another has its leftovers to bear: all take
			// turns in that.
			side := (i + round) % len(sides)
			took, err := sides[side](round)
			if err != nil {
				return nil, err
			}
			out[side] = append(out[side], took)
		}
	}
	return out, nil
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func object(fields map[string]any) []byte {
	// Maps of texts and numbers can always be encoded.
	out, _ := json.Marshal(fields)
	return out
}

// agentFile is the agent's file of all hosts that have no other.
func (c *Contest) agentFile() error {
	return os.WriteFile("/etc/dcos-overlay/agent.json", []byte(`{"master": "http://`+underlay+`:64001"}`), 0o600)
}

// forget takes away what a host without other directories has on disk: what
// comes next is a host's first boot.
func (c *Contest) forget() error {
	entries, err := os.ReadDir("/var/lib/dcos-overlay")
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join("/var/lib/dcos-overlay", e.Name())))
	}
	return errors.Join(err, os.RemoveAll("/run/dcos-overlay"))
}
