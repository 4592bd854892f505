package contest

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/dcos/dcos-overlay/bench/machine"
)

// contender is a way to attach containers, on a host of its own.
type contender struct {
	name string
	// bin is the program in Contest.Bin.
	bin  string
	conf []byte
	host *machine.Place
	// chained is the configuration of portmap where the runtime runs that
	// after bin, and before it for DEL.
	chained map[string]any
}

// overlayConf is the file of an overlay as the manual has it.
func overlayConf(more map[string]any) []byte {
	conf := map[string]any{"cniVersion": "1.0.0", "name": "dcos", "type": "dcos-overlay", "ipam": map[string]any{"type": "dcos-ipam"}}
	for k, v := range more {
		conf[k] = v
	}
	return object(conf)
}

func bridgeConf(name, subnet string, masq bool) []byte {
	return object(map[string]any{
		"cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": name, "isGateway": true, "ipMasq": masq,
		"ipam": map[string]any{
			"type": "host-local", "ranges": []any{[]any{map[string]any{"subnet": subnet}}},
			"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
		},
	})
}

// ours is the overlay on a new host, which has had its first container.
func (c *Contest) ours(name, ip string) (*contender, error) {
	return c.oursWith(name, ip, nil)
}

// oursWith is the same with more in the overlay's file.
func (c *Contest) oursWith(name, ip string, more map[string]any) (*contender, error) {
	if err := c.coordinate(); err != nil {
		return nil, err
	}
	host, err := c.host(name, ip)
	if err != nil {
		return nil, err
	}
	return c.warm(&contender{name: "dcos-overlay", bin: "dcos-overlay", conf: overlayConf(more), host: host})
}

func (c *Contest) stock(name, subnet string, masq bool) (*contender, error) {
	host, err := c.Machine.Add(name)
	if err != nil {
		return nil, err
	}
	title := "bridge + host-local"
	if masq {
		title += ", ipMasq"
	}
	return c.warm(&contender{name: title, bin: "bridge", conf: bridgeConf(name, subnet, masq), host: host})
}

func (c *Contest) floor(name, subnet string) (*contender, error) {
	host, err := c.Machine.Add(name)
	if err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"ip", "link", "add", name, "type", "bridge"}, {"ip", "link", "set", name, "up"}} {
		if err := c.Machine.Command(host, args...); err != nil {
			return nil, err
		}
	}
	return c.warm(&contender{name: "bare program", bin: "floor", conf: bridgeConf(name, subnet, false), host: host})
}

// warm attaches a first container and detaches it: what a host needs once is
// there then.
func (c *Contest) warm(by *contender) (*contender, error) {
	box, err := c.Machine.Add(by.host.Name + "-warm")
	if err != nil {
		return nil, err
	}
	if _, err := c.add(by, box); err != nil {
		return nil, err
	}
	if _, err := c.del(by, box); err != nil {
		return nil, err
	}
	return by, c.Machine.Remove(box)
}

// boxes are containers without network.
func (c *Contest) boxes(name string, n int) ([]*machine.Place, error) {
	out := make([]*machine.Place, n)
	for i := range out {
		var err error
		if out[i], err = c.Machine.Add(fmt.Sprintf("%s-%d", name, i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c *Contest) add(by *contender, box *machine.Place) (float64, error) {
	took, out, err := c.exec(by, "ADD", box)
	if err != nil || by.chained == nil {
		return took, err
	}
	by.chained["prevResult"] = json.RawMessage(out)
	more, _, err := c.exec(by.portmap(), "ADD", box)
	return took + more, err
}

func (c *Contest) del(by *contender, box *machine.Place) (float64, error) {
	var first float64
	if by.chained != nil {
		var err error
		if first, _, err = c.exec(by.portmap(), "DEL", box); err != nil {
			return 0, err
		}
	}
	took, _, err := c.exec(by, "DEL", box)
	return first + took, err
}

// portmap is by's chained plugin, with the result of the last ADD.
func (by *contender) portmap() *contender {
	return &contender{bin: "portmap", conf: object(by.chained), host: by.host}
}

// exec answers how long a verb took, in milliseconds, and what was printed.
func (c *Contest) exec(by *contender, verb string, box *machine.Place) (float64, []byte, error) {
	time.Sleep(settle)
	took, out, err := c.Machine.Exec(by.host, c.call(by, verb, box))
	return ms(took), out, err
}

func (c *Contest) call(by *contender, verb string, box *machine.Place) machine.Call {
	return machine.Call{Bin: filepath.Join(c.Bin, by.bin), Verb: verb, Conf: by.conf, Container: box, ContainerID: box.Name}
}
