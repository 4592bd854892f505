// Package doctor looks at one host as a part of the overlays and says of each
// thing whether it is right and, if not, what to do. What should be is
// computed by the same packages by which plugins and companion set a host up;
// nothing is changed.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/ctl/ping"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/host"
)

// Level is how bad a thing is.
type Level string

// The levels. Warn is what may become trouble, or is less than it could be.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Line is one thing that was looked at.
type Line struct {
	Level Level `json:"level"`
	// Name is the thing's.
	Name string `json:"name"`
	Text string `json:"text"`
	// Remedy says what to do; it is empty where nothing is to be done.
	Remedy string `json:"remedy,omitempty"`
}

// Docker is what is needed of the Docker Engine; *docker.Engine has it.
type Docker interface {
	Check(ctx context.Context, n docker.Network) (problem string, err error)
}

// Coordinator is what is needed of the coordinators; *apiclient.Client has it.
type Coordinator interface {
	Health(ctx context.Context) []apiclient.Health
	AgentsStatus(ctx context.Context) (api.AgentsResponse, error)
}

// Doctor looks at this host.
type Doctor struct {
	Host        *host.Host
	Docker      Docker
	Coordinator Coordinator
	// Companion is the URL of the companion's own health.
	Companion string
	// Pings is how many other VTEPs are asked at most.
	Pings int
	// Timeout bounds the wait for the coordinators, for Docker and for one
	// packet's answer.
	Timeout time.Duration
	// Tell is called with each line as soon as it is known.
	Tell func(Line)

	runs  bool // the companion
	held  *agentstate.Held
	known host.Knowledge
	// alive are the agents that the coordinator has heard of lately.
	alive map[netip.Addr]bool
}

// Run looks at everything.
func (d *Doctor) Run(ctx context.Context) {
	if id := os.Geteuid(); id != 0 {
		d.tell(Warn, "user", fmt.Sprintf("doctor runs as user %d, who may look at a part only: what fails below may be right", id), "run doctor as root: sudo dcos-overlayctl doctor")
	}
	d.lease()
	d.companion(ctx)
	d.coordinators(ctx)
	if d.held == nil {
		return // without lease there is nothing to compare with
	}
	checked := d.kernel(ctx)
	d.firewalls(ctx, checked.Rules)
	d.docker(ctx, checked.MTU)
	d.neighbourTables()
	d.trackedConnections()
	d.ping(ctx, checked)
}

func (d *Doctor) tell(level Level, name, text, remedy string) {
	if level == OK {
		remedy = ""
	}
	d.Tell(Line{Level: level, Name: name, Text: oneLine(text), Remedy: remedy})
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// What to do about things that the companion keeps right.
const (
	startCompanion = "start the companion: systemctl start dcos-overlay-companion"
	readCompanion  = "see what the companion says: journalctl -u dcos-overlay-companion"
)

// repair is the remedy for what a companion repairs.
func (d *Doctor) repair() string {
	if d.runs {
		return "the companion repairs this in a moment; if it stays, " + readCompanion
	}
	return "the companion repairs this; " + startCompanion
}

func (d *Doctor) lease() {
	const name = "lease"
	dir := d.Host.Dir
	held, err := dir.Held()
	switch {
	case errors.Is(err, fs.ErrPermission):
		d.tell(Fail, name, err.Error(), "run doctor as root")
		return
	case err != nil:
		d.tell(Fail, name, err.Error(), "remove the file; the companion, or the next container, claims the same lease again")
		return
	case held == nil && d.Host.Conf.Network.MesosBridge && !d.Host.Conf.Network.DockerBridge:
		d.tell(OK, name, "none yet, which is as it should be before the first container of this host", "")
		return
	case held == nil:
		d.tell(Fail, name, "this host holds none in "+dir.State, "the companion claims one, or the first container does; "+startCompanion)
		return
	}
	d.held = held
	a := held.Agent
	var parts []string
	for _, o := range a.Overlays {
		for _, p := range o.AllSubnets() {
			parts = append(parts, o.Name+" "+p.String())
		}
	}
	if len(parts) == 0 {
		parts = []string{"no subnets"}
	}
	d.tell(OK, name, fmt.Sprintf("agent %s, VTEP %s, %s", a.IP, a.VTEP.IP.Addr(), strings.Join(parts, ", ")), "")
	ip, err := d.Host.Conf.AgentIP()
	switch {
	case err != nil:
		d.tell(Warn, "address", fmt.Sprintf("%v, so that of the lease (%s) holds", err, a.IP), "set ip, interface or ip_cidr in the agent's file")
	case ip != a.IP:
		d.tell(Fail, "address", fmt.Sprintf("this host is %s, and its lease is of %s", ip, a.IP),
			"if it moved, the companion moves the lease, too: "+startCompanion+"; else correct ip, interface or ip_cidr in the agent's file")
	default:
		d.tell(OK, "address", fmt.Sprintf("this host is %s", ip), "")
	}
	if !a.Config.AllocateSubnet {
		d.tell(OK, "network_config", "allocate_subnet is false: a VTEP, and no containers", "")
	}
}

// kernel tells what of this host's kernel is not as it should be.
func (d *Doctor) kernel(ctx context.Context) host.Checked {
	checked, err := d.Host.Check(ctx, d.held, d.known)
	if err != nil {
		d.tell(Fail, "kernel", err.Error(), "run doctor as root")
		return checked
	}
	for _, f := range checked.Findings {
		name := string(f.Part)
		switch {
		case f.Err != nil && f.Part == host.PartUnderlay:
			d.tell(Fail, name, f.Err.Error(), "give the host this address again, or correct ip, interface or ip_cidr in the agent's file")
		case f.Err != nil:
			d.tell(Fail, name, f.Err.Error(), "run doctor as root; "+d.repair())
		case len(f.Problems) > 0:
			for _, p := range f.Problems {
				d.tell(Fail, name, present(p), d.remedy(f.Part, p))
			}
		case len(f.Warnings) == 0:
			d.tell(OK, name, f.Want, "")
		}
		for _, w := range f.Warnings {
			d.tell(Warn, name, w, d.warning(f.Part))
		}
	}
	return checked
}

// remedy is what to do about a problem of one part.
func (d *Doctor) remedy(part host.Part, problem string) string {
	switch {
	case part == host.PartIPv6:
		return "do as it says; what has IPv4 alone works without"
	case strings.Contains(problem, "is taken by"):
		return "end the other program, or remove its device; then " + startCompanion
	case part == host.PartForwarding:
		return d.repair() + "; look for who turns it off in /etc/sysctl.d"
	case part == host.PartFixed && strings.Contains(problem, "does not hold"):
		return "stop the container if the address is another agent's by now; else " + d.repair()
	case part == host.PartRules:
		return d.repair() + "; look for who changes iptables"
	}
	return d.repair()
}

func (d *Doctor) warning(part host.Part) string {
	switch part {
	case host.PartUnderlay:
		return "lower network_config.overlay_mtu in the agent's file or vtep_mtu in the network's configuration, or raise the MTU of the underlay"
	case host.PartFilter:
		return "load the kernel's modules ip_set, ip_set_hash_ip and xt_set; " + readCompanion
	}
	return "move the rules to one flavour of iptables"
}

// present is what was found when repairing, as something that is so now.
func present(s string) string {
	return strings.NewReplacer(
		" was missing", " is missing",
		" had other rules", " has other rules",
		" had conditions", " has conditions",
		" had ", " has ",
		" was left over", " is left over",
		" was not first in ", " is not first in ",
		" was in ", " is in ",
		" there were ", " there are ",
		" led to ", " leads to ",
	).Replace(s)
}

// docker compares the Docker network of each overlay.
func (d *Doctor) docker(ctx context.Context, mtu int) {
	if !d.held.Agent.Config.DockerBridge || mtu == 0 {
		return
	}
	for _, o := range d.held.Agent.Overlays {
		n, ok := docker.Of(o, mtu)
		if !ok {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, d.Timeout)
		problem, err := d.Docker.Check(ctx, n)
		cancel()
		switch {
		case err != nil && strings.Contains(err.Error(), docker.ErrUnavailable.Error()):
			d.tell(Fail, "Docker", err.Error(), "systemctl start docker; on a host without Docker set network_config.docker_bridge to false in the agent's file")
			return
		case err != nil:
			d.tell(Fail, "Docker network "+o.Name, err.Error(), "docker network inspect "+o.Name)
		case problem != "":
			d.tell(Fail, "Docker network "+o.Name, present(problem), d.repair())
		default:
			d.dockerBridge(n)
		}
	}
}

// ping asks other VTEPs through the overlay.
func (d *Doctor) ping(ctx context.Context, checked host.Checked) {
	const name = "ping"
	var targets []ping.Target
	for _, a := range d.known.Agents {
		if a.IP == d.held.Agent.IP || len(d.alive) > 0 && !d.alive[a.IP] || len(targets) == d.Pings {
			continue
		}
		targets = append(targets, ping.Target{Agent: a.IP, VTEP: a.VTEP.IP.Addr()})
	}
	if len(targets) == 0 {
		d.tell(OK, name, "there is no other agent that is alive", "")
		return
	}
	results, err := ping.Run(ctx, targets, ping.Options{Size: checked.VTEPMTU, Count: 2, Timeout: d.Timeout, Parallel: len(targets)}, func(ping.Result) {})
	if err != nil {
		d.tell(Fail, name, err.Error(), "run doctor as root")
		return
	}
	for _, r := range results {
		to := fmt.Sprintf("VTEP %s of agent %s", r.VTEP, r.Agent)
		switch {
		case r.OK():
			d.tell(OK, name, fmt.Sprintf("%s answers in %s, also to %d bytes", to, r.RTT.Round(10*time.Microsecond), r.MTU), "")
		case r.Received == 0:
			d.tell(Fail, name, to+": "+r.Problem, "let UDP port 64000 through between the hosts, both ways; run doctor on "+r.Agent.String())
		case r.MTU > 0 && r.MTU < checked.VTEPMTU:
			d.tell(Fail, name, to+": "+r.Problem, fmt.Sprintf("give all hosts one MTU, or set network_config.overlay_mtu to %d in each agent's file", r.MTU))
		default:
			d.tell(Warn, name, to+": "+r.Problem, "look at the underlay between the hosts: it loses packets")
		}
	}
}
