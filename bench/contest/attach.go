package contest

import (
	"fmt"
	"time"

	"github.com/dcos/dcos-overlay/bench/machine"
	"github.com/dcos/dcos-overlay/bench/report"
	"github.com/dcos/dcos-overlay/bench/stat"
)

// Attach measures ADD and DEL of one container on a host that is set up.
func (c *Contest) Attach() ([]report.Row, error) {
	c.Log("ADD and DEL, warm")
	ours, err := c.ours("warm", "10.77.1.1")
	if err != nil {
		return nil, err
	}
	stock, err := c.stock("stock", "10.88.0.0/24", false)
	if err != nil {
		return nil, err
	}
	masq, err := c.stock("masq", "10.89.0.0/24", true)
	if err != nil {
		return nil, err
	}
	floor, err := c.floor("floor", "10.90.0.0/24")
	if err != nil {
		return nil, err
	}
	all := []*contender{ours, stock, masq, floor}
	adds, dels, err := c.turns(all)
	if err != nil {
		return nil, err
	}
	row := compare("attach", ", warm", all)
	return []report.Row{
		row("ADD", adds, 1, 0.50), row("ADD", adds, 2, 0.22), row("ADD", adds, 3, 1.25),
		row("DEL", dels, 1, 0.90), row("DEL", dels, 2, 0.25), row("DEL", dels, 3, 0),
	}, nil
}

// turns measures ADD and DEL of one container by each of all in turns, in
// milliseconds.
func (c *Contest) turns(all []*contender) (adds, dels []stat.Sample, err error) {
	dels = make([]stat.Sample, len(all))
	var sides []func(int) (float64, error)
	for i, by := range all {
		box, err := c.Machine.Add(by.host.Name + "-" + by.bin)
		if err != nil {
			return nil, nil, err
		}
		sides = append(sides, func(int) (float64, error) {
			add, err := c.add(by, box)
			if err != nil {
				return 0, err
			}
			del, err := c.del(by, box)
			dels[i] = append(dels[i], del)
			return add, err
		})
	}
	adds, err = c.duel(c.Rounds, sides...)
	return adds, dels, err
}

// compare makes rows of what the first of all took against another; what is
// the verb and then what is said of it.
func compare(part, what string, all []*contender) func(verb string, of []stat.Sample, against int, goal float64) report.Row {
	return func(verb string, of []stat.Sample, against int, goal float64) report.Row {
		return report.Row{Part: part, What: verb + what, Ours: of[0].Sum(), Against: all[against].name, Peer: of[against].Sum(),
			Ratio: stat.Ratios(of[0], of[against]).Sum(), Unit: "ms", Goal: goal}
	}
}

// Parallel measures many ADDs at once, from the first fork to the last end.
func (c *Contest) Parallel() ([]report.Row, error) {
	c.Log(fmt.Sprintf("%d ADDs at once", c.Crowd))
	ours, err := c.ours("crowd", "10.77.2.1")
	if err != nil {
		return nil, err
	}
	stock, err := c.stock("scrowd", "10.91.0.0/24", false)
	if err != nil {
		return nil, err
	}
	floor, err := c.floor("fcrowd", "10.92.0.0/24")
	if err != nil {
		return nil, err
	}
	all := []*contender{ours, stock, floor}
	dels := make([]stat.Sample, len(all))
	var sides []func(int) (float64, error)
	for i, by := range all {
		boxes, err := c.boxes(by.host.Name, c.Crowd)
		if err != nil {
			return nil, err
		}
		sides = append(sides, func(int) (float64, error) {
			add, err := c.atOnce(by, "ADD", boxes)
			if err != nil {
				return 0, err
			}
			del, err := c.atOnce(by, "DEL", boxes)
			dels[i] = append(dels[i], del)
			return add, err
		})
	}
	adds, err := c.duel(c.Slow, sides...)
	if err != nil {
		return nil, err
	}
	row := compare("parallel", "s, wall", all)
	add, del := fmt.Sprintf("%d parallel ADD", c.Crowd), fmt.Sprintf("%d parallel DEL", c.Crowd)
	return []report.Row{row(add, adds, 1, 0.45), row(add, adds, 2, 0), row(del, dels, 1, 0), row(del, dels, 2, 0)}, nil
}

// atOnce answers how long a verb took for all boxes, in milliseconds.
func (c *Contest) atOnce(by *contender, verb string, boxes []*machine.Place) (float64, error) {
	time.Sleep(settle)
	began := time.Now()
	var running []*machine.Process
	var failed error
	for _, box := range boxes {
		p, err := c.Machine.Begin(by.host, c.call(by, verb, box))
		if err != nil {
			failed = err
			break
		}
		running = append(running, p)
	}
	for _, p := range running {
		if _, _, err := p.End(); err != nil {
			failed = err
		}
	}
	return ms(time.Since(began)), failed
}

// First measures the first ADD on hosts that have just been made: claim,
// VTEP, bridge and rules.
func (c *Contest) First() ([]report.Row, error) {
	c.Log("first ADD on a host")
	if err := c.coordinate(); err != nil {
		return nil, err
	}
	var first, second stat.Sample
	for i := range c.Slow {
		if err := c.forget(); err != nil {
			return nil, err
		}
		host, err := c.host(fmt.Sprintf("new%d", i), fmt.Sprintf("10.77.%d.%d", 3+i/250, 1+i%250))
		if err != nil {
			return nil, err
		}
		boxes, err := c.boxes(host.Name, 2)
		if err != nil {
			return nil, err
		}
		by := &contender{name: "dcos-overlay", bin: "dcos-overlay", conf: overlayConf(nil), host: host}
		for j, into := range []*stat.Sample{&first, &second} {
			took, err := c.add(by, boxes[j])
			if err != nil {
				return nil, err
			}
			*into = append(*into, took)
		}
		// A host that is gone does not disturb the next.
		for _, p := range append(boxes, host) {
			if err := c.Machine.Remove(p); err != nil {
				return nil, err
			}
		}
		time.Sleep(hostSettle)
	}
	return []report.Row{{Part: "first", What: "first ADD on a host (claim, VTEP, bridge, rules)", Ours: first.Sum(), Against: "own ADD, warm",
		Peer: second.Sum(), Ratio: stat.Ratios(first, second).Sum(), Unit: "ms", Goal: 8}}, c.forget()
}

// hostSettle is what the kernel gets to take a whole host away.
const hostSettle = 100 * time.Millisecond

// IPAM measures the IPAM plugins by themselves.
func (c *Contest) IPAM() ([]report.Row, error) {
	c.Log("IPAM plugins alone")
	if err := c.coordinate(); err != nil {
		return nil, err
	}
	host, err := c.host("ipam", "10.77.9.1")
	if err != nil {
		return nil, err
	}
	all := []*contender{
		{name: "dcos-ipam", bin: "dcos-ipam", conf: overlayConf(map[string]any{"type": "bridge"}), host: host},
		{name: "host-local", bin: "host-local", conf: bridgeConf("local", "10.93.0.0/24", false), host: host},
	}
	for _, by := range all {
		if _, err := c.warm(by); err != nil {
			return nil, err
		}
	}
	adds, dels, err := c.turns(all)
	if err != nil {
		return nil, err
	}
	row := func(verb string, of []stat.Sample, goal float64) report.Row {
		return report.Row{Part: "ipam", What: "dcos-ipam " + verb + " alone", Ours: of[0].Sum(), Against: "host-local " + verb + " alone",
			Peer: of[1].Sum(), Ratio: stat.Ratios(of[0], of[1]).Sum(), Unit: "ms", Goal: goal}
	}
	return []report.Row{row("ADD", adds, 1.1), row("DEL", dels, 0)}, c.forget()
}
