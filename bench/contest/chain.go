package contest

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/dcos/dcos-overlay/bench/report"
)

// Ports measures ADD and DEL of a container with one port mapping. Ours runs
// portmap itself; after bridge the runtime does.
func (c *Contest) Ports() ([]report.Row, error) {
	c.Log("ADD and DEL with a port mapping")
	mapping := map[string]any{
		"capabilities":  map[string]any{"portMappings": true},
		"runtimeConfig": map[string]any{"portMappings": []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}},
	}
	ours, err := c.oursWith("ports", "10.77.7.1", mapping)
	if err != nil {
		return nil, err
	}
	host, err := c.Machine.Add("sports")
	if err != nil {
		return nil, err
	}
	chained := map[string]any{"cniVersion": "1.0.0", "name": "sports", "type": "portmap"}
	maps.Copy(chained, mapping)
	stock, err := c.warm(&contender{name: "bridge + host-local, portmap", bin: "bridge", conf: bridgeConf("sports", "10.94.0.0/24", false), host: host, chained: chained})
	if err != nil {
		return nil, err
	}
	all := []*contender{ours, stock}
	adds, dels, err := c.turns(all)
	if err != nil {
		return nil, err
	}
	row := compare("ports", " with a port mapping", all)
	return []report.Row{row("ADD", adds, 1, 0), row("DEL", dels, 1, 0)}, nil
}

// FlannelProgram is flannel's CNI plugin in Contest.Bin.
const FlannelProgram = "flannel"

// subnetEnv is what flanneld writes for its plugin; flanneld itself does the
// masquerading then.
const subnetEnv = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

// Flannel measures ADD and DEL by flannel's CNI plugin, configured as in
// flannel's manifest; it runs bridge and host-local.
func (c *Contest) Flannel() ([]report.Row, error) {
	c.Log("flannel's CNI plugin")
	name := "flannel's CNI plugin"
	info, err := buildinfo.ReadFile(filepath.Join(c.Bin, FlannelProgram))
	if errors.Is(err, fs.ErrNotExist) {
		row := func(verb string) report.Row {
			return report.Row{Part: "flannel", What: verb + ", warm", Against: name, Unit: "ms", NotMeasured: "its module could not be had"}
		}
		return []report.Row{row("ADD"), row("DEL")}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask flannel's plugin for its version: %w", err)
	}
	ours, err := c.ours("beside", "10.77.6.1")
	if err != nil {
		return nil, err
	}
	host, err := c.Machine.Add("flannel")
	if err != nil {
		return nil, err
	}
	env := filepath.Join(c.Machine.Dir, "subnet.env")
	if err := os.WriteFile(env, []byte(subnetEnv), 0o600); err != nil {
		return nil, err
	}
	conf := object(map[string]any{
		"cniVersion": "0.3.1", "name": "cbr0", "type": "flannel", "subnetFile": env,
		"delegate": map[string]any{"hairpinMode": true, "isDefaultGateway": true},
	})
	title := fmt.Sprintf("%s, %s %s", name, filepath.Base(info.Main.Path), info.Main.Version)
	theirs, err := c.warm(&contender{name: title, bin: FlannelProgram, conf: conf, host: host})
	if err != nil {
		return nil, err
	}
	all := []*contender{ours, theirs}
	adds, dels, err := c.turns(all)
	if err != nil {
		return nil, err
	}
	row := compare("flannel", ", warm", all)
	return []report.Row{row("ADD", adds, 1, 0), row("DEL", dels, 1, 0)}, nil
}
