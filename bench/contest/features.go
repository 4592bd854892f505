package contest

import (
	"fmt"
	"os"

	"github.com/dcos/dcos-overlay/bench/report"
)

// twoOverlays are a plain overlay and one that has all that an overlay can
// have. Half of an agent's first subnet has one address for containers there.
const twoOverlays = `{"vtep_subnet": "44.128.0.0/16", "vtep_mac_oui": "70:B3:D5:00:00:00", "overlays": [
	{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 24},
	{"name": "full", "subnet": "10.96.0.0/16", "prefix": 29, "isolated": true, "static_subnet": "10.96.255.0/24", "max_subnets": 8}]}`

// Features measures whether a warm ADD is slower on an overlay that is isolated
// and has fixed addresses, by an agent that holds a further subnet since its
// first one is full. What an ADD with a fixed address takes, which a
// coordinator is asked for, is beside it.
func (c *Contest) Features() ([]report.Row, error) {
	c.Log("ADD with further subnets, isolation and fixed addresses")
	c.network = twoOverlays
	plain, err := c.apart("plain", "10.77.8.1", nil)
	if err != nil {
		return nil, err
	}
	full, err := c.apart("full", "10.77.8.2", map[string]any{"name": "full"})
	if err != nil {
		return nil, err
	}
	for _, by := range []*contender{plain, full} {
		// Both sides have as many reservations to look through.
		boxes, err := c.boxes(by.host.Name+"-stays", 3)
		if err != nil {
			return nil, err
		}
		for _, box := range boxes {
			if _, err := c.add(by, box); err != nil {
				return nil, err
			}
		}
	}
	fixed, err := c.apart("fixed", "10.77.8.3", map[string]any{"name": "full", "runtimeConfig": map[string]any{"ips": []string{"10.96.255.7"}}})
	if err != nil {
		return nil, err
	}
	full.name, plain.name, fixed.name = "isolated, fixed range, further subnet", "plain overlay", "with a fixed address"
	all := []*contender{full, plain, fixed}
	adds, dels, err := c.turns(all)
	if err != nil {
		return nil, err
	}
	row := compare("features", ", warm, "+full.name, all)
	rows := []report.Row{row("ADD", adds, 1, 1.05), row("DEL", dels, 1, 1.05)}
	fixedRow := compare("features", ", "+fixed.name, []*contender{fixed, plain})
	return append(rows, fixedRow("ADD", append(adds[2:3:3], adds[1]), 1, 0), fixedRow("DEL", append(dels[2:3:3], dels[1]), 1, 0)), nil
}

// apart is ours on a host with directories of its own, beside another such one.
func (c *Contest) apart(name, ip string, more map[string]any) (*contender, error) {
	if err := c.coordinate(); err != nil {
		return nil, err
	}
	file := object(map[string]any{
		"master": "http://" + underlay + ":64001", "state_dir": "/var/lib/dcos-overlay/" + name, "run_dir": "/run/dcos-overlay/" + name,
	})
	path := "/etc/dcos-overlay/" + name + ".json"
	if err := os.WriteFile(path, file, 0o600); err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	conf := map[string]any{"agentConfig": path}
	for k, v := range more {
		conf[k] = v
	}
	return c.oursWith(name, ip, conf)
}
