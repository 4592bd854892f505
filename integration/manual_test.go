package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/manual"
)

// root is the module's.
const root = ".."

// play is how the commands of one manual are played.
type play struct {
	// inCheckout: hosts have the checkout as working directory. docker: agents
	// have a Docker Engine.
	inCheckout, docker bool
	// before is what the manual takes for done.
	before []manual.Block
}

// running is a cluster as the quick start makes it, whose agents have these
// fields in network_config.
func running(networkConfig string) []manual.Block {
	return []manual.Block{
		{Place: "coordinator", Text: `
			install -D -m 644 -t /etc/dcos-overlay dcos-overlay/conf/network.json
			install -D -m 644 -t /etc/systemd/system dcos-overlay/conf/systemd/dcos-overlay-coordinator.service
			systemctl enable --now dcos-overlay-coordinator
			curl -fsS --retry 20 --retry-delay 1 --retry-all-errors http://127.0.0.1:64001/readyz
			`},
		{Place: "agents", Text: `
			install -D -m 755 -t /opt/mesos/cni/bin "$PROGRAMS/dcos-overlay" "$PROGRAMS/dcos-ipam" "$PROGRAMS/dcos-overlay-call"
			install -D -m 644 -t /etc/mesos/cni dcos-overlay/conf/dcos.cni
			mkdir -p /etc/dcos-overlay
			echo '{"master": "172.17.0.2", "network_config": {` + networkConfig + `}}' >/etc/dcos-overlay/agent.json
			install -D -m 644 -t /etc/systemd/system dcos-overlay/conf/systemd/dcos-overlay-companion.service
			systemctl enable --now dcos-overlay-companion
			curl -fsS --retry 20 --retry-delay 1 --retry-all-errors http://127.0.0.1:64002/healthz
			`},
	}
}

// withoutContainers is the network_config of hosts that hold a lease from their
// start, and need no Docker Engine for it.
const withoutContainers = `"mesos_bridge": false, "docker_bridge": false`

// plays are by the manual's path. A manual that has commands must be here.
var plays = map[string]play{
	"README.md":               {},
	"docs/quickstart.md":      {inCheckout: true, docker: true},
	"docs/reference.md":       {before: running("")[:1]},
	"docs/production.md":      {docker: true},
	"docs/troubleshooting.md": {docker: true, before: running("")},
	"docs/security.md":        {before: running(withoutContainers)},
	"docs/upgrade.md": {before: append(running(withoutContainers),
		manual.Block{Place: "coordinator", Text: newPrograms}, manual.Block{Place: "agents", Text: newPrograms})},
	// DC/OS's master is played by a server with its answer, and Docker has
	// the networks that its agent makes.
	"docs/from-dcos.md": {docker: true, before: []manual.Block{
		{Place: "operator", Text: `
			mkdir -p /srv/overlay-master
			cp dcos-overlay/integration/scene/testdata/overlay-master-state.json /srv/overlay-master/state
			busybox httpd -p 5050 -h /srv
			`},
		{Place: "coordinator", Text: dcosConfig},
		{Place: "agents", Text: dcosConfig + "docker network create dcos && docker network create dcos6"},
	}},
	"docs/from-flannel.md": {before: []manual.Block{{Place: "agents", Text: flannelRemains}}},
}

const (
	newPrograms = `mkdir new && cp "$PROGRAMS"/dcos-* new/`
	dcosConfig  = `install -D -m 644 -t /opt/mesosphere/etc/overlay/config dcos-overlay/integration/scene/testdata/*.json
		`
	flannelRemains = `
		ip link add flannel.1 type vxlan id 1 dstport 8472 local 127.0.0.1
		ip link add cni0 type bridge
		for chain in nat:POSTROUTING:FLANNEL-POSTRTG filter:FORWARD:FLANNEL-FWD; do
			IFS=: read -r table from to <<<"$chain"
			iptables -w -t "$table" -N "$to"
			iptables -w -t "$table" -A "$from" -j "$to"
		done
		printf '[Service]\nExecStart=/bin/sleep infinity\n' >/etc/systemd/system/flanneld.service
		systemctl start flanneld
		`
)

// notPlayed are the commands that only stand in a manual, by the first line of
// their "console" block, and why they can't be played.
var notPlayed = map[string]string{
	"$ sudo systemctl restart mesos-slave":                     "there is no Mesos",
	"$ sudo systemctl disable --now dcos-mesos-slave dcos-net": "there is no DC/OS",
	"$ sudo systemctl enable --now dcos-mesos-slave":           "there is no DC/OS",
	"$ etcdctl get /coreos.com/network/config":                 "there is no etcd of flannel's; it shows what is asked for",
	"$ sudo tcpdump -ni any udp port 64000":                    "it goes on until it is interrupted",
	"$ sudo ethtool -K vtep1024 tx off":                        "it is an experiment on real network cards",
	"$ chronyc tracking":                                       "hosts of the lab have the machine's clock",
	"$ mesos-execute --master=leader.mesos:5050 --name=web --command='ip addr; sleep 600' --networks=dcos": "there is no Mesos",
}

// manuals are all texts of the repository that tell readers what to run.
func manuals(t *testing.T) map[string][]manual.Block {
	t.Helper()
	paths := must[[]string](t)(filepath.Glob(filepath.Join(root, "docs", "*.md")))
	out := map[string][]manual.Block{}
	for _, p := range append(paths, filepath.Join(root, "README.md"), filepath.Join(root, "conf", "README.md")) {
		text := must[[]byte](t)(os.ReadFile(p))
		blocks, err := manual.Blocks(string(text))
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
		out[must[string](t)(filepath.Rel(root, p))] = blocks
	}
	return out
}

// TestManualsCommands plays the commands of each manual, in their order.
func TestManualsCommands(t *testing.T) {
	for name, blocks := range manuals(t) {
		var sh []manual.Block
		for _, b := range blocks {
			if b.Language == "sh" && b.Place != "ci" {
				sh = append(sh, b)
			}
		}
		p, ok := plays[name]
		if len(sh) > 0 != ok {
			t.Errorf("%s has %d blocks of commands, and that it is to be played is %t: correct the table", name, len(sh), ok)
		}
		if ok {
			t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
				t.Parallel() // each in a lab of its own, and mostly waiting
				p.run(t, sh)
			})
		}
	}
}

func (p play) run(t *testing.T, blocks []manual.Block) {
	l := must[*lab.Lab](t)(lab.New(lab.Options{Bin: bin}))
	t.Cleanup(func() { check(t, l.Close()) })
	s := &manual.Stage{
		Lab: l, Bin: bin, Checkout: must[string](t)(filepath.Abs(root)),
		InCheckout: p.inCheckout, Docker: p.docker,
		Tell: func(b manual.Block, host, said string) {
			t.Logf("line %d, on %s:\n%s%s", b.Line, host, b.Text, said)
		},
	}
	for _, b := range slices.Concat(p.before, blocks) {
		if err := s.Play(t.Context(), b); err != nil {
			t.Fatalf("%v\n%s", err, s.Log(t.Context()))
		}
	}
}

// TestManualsOtherBlocks: what is not played is shown for a reason.
func TestManualsOtherBlocks(t *testing.T) {
	ci := string(must[[]byte](t)(os.ReadFile(filepath.Join(root, ".ci", "run"))))
	seen := map[string]bool{}
	for name, blocks := range manuals(t) {
		for _, b := range blocks {
			switch b.Language {
			case "sh":
				if b.Place != "ci" {
					continue
				}
				for line := range strings.Lines(b.Text) {
					line = strings.TrimPrefix(strings.TrimSpace(line), "sudo ")
					if !slices.Contains(strings.Split(ci, "\n"), line) {
						t.Errorf("%s, line %d: CI does not run %q", name, b.Line, line)
					}
				}
			case "console":
				seen[b.Head()] = true
				if notPlayed[b.Head()] == "" {
					t.Errorf("%s, line %d: it is not told why this is not played: %s", name, b.Line, b.Head())
				}
			case "json":
				if !json.Valid([]byte(b.Text)) {
					t.Errorf("%s, line %d: this is no JSON: %s", name, b.Line, b.Text)
				}
			case "text", "yaml", "ini", "promql":
			default:
				t.Errorf("%s, line %d: commands are in blocks of sh, what is only shown in text, json, yaml, ini or console; this is %q", name, b.Line, b.Language)
			}
		}
	}
	for head := range notPlayed {
		if !seen[head] {
			t.Errorf("no manual has %q any more", head)
		}
	}
}
