package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
)

const (
	// maxSkew is how far clocks may differ: coordinators count the quarantine
	// by each other's times, and certificates begin and end by the clock.
	maxSkew = 5 * time.Second
	// soon is how long before its end a certificate is warned of.
	soon = 14 * 24 * time.Hour
	// maxHealth bounds what is read of the companion's word, in bytes.
	maxHealth = 16 << 10
)

func (d *Doctor) companion(ctx context.Context) {
	const name = "companion"
	d.runs = d.Host.Dir.CompanionRuns()
	if !d.runs {
		d.tell(Warn, name, "none runs on this host: nothing is repaired, and new agents are not heard of", startCompanion)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Companion, nil)
	if err != nil {
		d.tell(Fail, name, err.Error(), "correct --companion")
		return
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		d.tell(Warn, name, "it runs, and its status can't be read: "+err.Error(), "give its --listen address as --companion")
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxHealth))
	switch {
	case err != nil:
		d.tell(Warn, name, "it runs, and its status can't be read: "+err.Error(), readCompanion)
	case resp.StatusCode != http.StatusOK:
		d.tell(Fail, name, "it runs, and says: "+string(text), readCompanion)
	default:
		d.tell(OK, name, "it runs, and finds the host as it should be", "")
	}
}

// coordinators asks each of them, learns of the other agents, and compares the
// lease with the coordinators' word.
func (d *Doctor) coordinators(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout*2)
	defer cancel()
	for _, h := range d.Coordinator.Health(ctx) {
		d.coordinator(h)
	}
	d.ownCertificate()
	all, err := d.Coordinator.AgentsStatus(ctx)
	if err != nil {
		d.tell(Fail, "coordinator", err.Error()+"; what was known before is compared with", "start a coordinator, or correct master in the agent's file; what is set up goes on without")
		if d.known.Agents, err = d.Host.Dir.Peers(); err != nil {
			d.tell(Warn, "peers", err.Error(), "it is written anew once a coordinator answers")
		}
		return
	}
	d.known = host.Knowledge{Agents: all.Agents, Complete: true}
	d.alive = map[netip.Addr]bool{}
	for ip, s := range all.Status {
		if s.Alive {
			d.alive[ip] = true
		}
	}
	if d.held != nil {
		d.record(all)
	}
}

func (d *Doctor) coordinator(h apiclient.Health) {
	name := "coordinator " + h.URL
	switch {
	case !h.Answered:
		d.tell(Fail, name, "no answer: "+h.Reason, "start it, let TCP port 64001 through, or correct master in the agent's file")
		return
	case !h.Ready:
		d.tell(Fail, name, "it is not ready: "+h.Reason, "look at its etcd; its log says more")
	default:
		d.tell(OK, name, fmt.Sprintf("ready, answers in %s", h.Took.Round(100*time.Microsecond)), "")
	}
	if h.Skew.Abs() > maxSkew {
		d.tell(Warn, "clock", fmt.Sprintf("that of %s differs by %s from this host's", h.URL, h.Skew.Abs().Round(time.Second)), "let NTP set both clocks: chronyc tracking, timedatectl")
	} else {
		d.tell(OK, "clock", "that of "+h.URL+" and this host's agree", "")
	}
	if !h.Expires.IsZero() {
		d.expiry("certificate of "+h.URL, h.Expires)
	}
}

func (d *Doctor) expiry(name string, at time.Time) {
	left := time.Until(at)
	text := fmt.Sprintf("it is good until %s", at.Format(time.DateTime))
	const remedy = "put a new one into its place; it is read again without a restart"
	switch {
	case left <= 0:
		d.tell(Fail, name, "it expired at "+at.Format(time.DateTime), remedy)
	case left < soon:
		d.tell(Warn, name, text, remedy)
	default:
		d.tell(OK, name, text, "")
	}
}

// ownCertificate looks at the one that this host shows to coordinators.
func (d *Doctor) ownCertificate() {
	path := d.Host.Conf.CertFile
	if path == "" {
		return
	}
	const name = "client certificate"
	const remedy = "correct cert_file in the agent's file"
	data, err := os.ReadFile(path)
	if err != nil {
		d.tell(Fail, name, err.Error(), remedy)
		return
	}
	block, _ := pem.Decode(data)
	if block == nil {
		d.tell(Fail, name, path+" holds no PEM certificate", remedy)
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		d.tell(Fail, name, path+": "+err.Error(), remedy)
		return
	}
	d.expiry(name, cert.NotAfter)
}

// record compares this host's lease with what the coordinators have.
func (d *Doctor) record(all api.AgentsResponse) {
	const name = "lease at the coordinator"
	self := d.held.Agent
	i := slices.IndexFunc(all.Agents, func(a lease.Agent) bool { return a.IP == self.IP })
	if i < 0 {
		d.tell(Fail, name, fmt.Sprintf("there is no agent %s: its lease was deleted or reclaimed, and others may get what it has", self.IP),
			"the companion claims anew; "+startCompanion+"; then restart the containers of this host")
		return
	}
	theirs := all.Agents[i]
	switch {
	case theirs.ID != self.ID:
		d.tell(Fail, name, "the record is of another machine, which has the same address", "give each host an address of its own; a copied machine needs its own /var/lib/dcos-overlay/agent-id: remove it there")
	case theirs.VTEP != self.VTEP || !reflect.DeepEqual(subnets(theirs), subnets(self)):
		d.tell(Fail, name, fmt.Sprintf("it says VTEP %s, %v; on disk there is VTEP %s, %v", theirs.VTEP.IP, subnets(theirs), self.VTEP.IP, subnets(self)),
			"the companion takes the coordinator's word; "+startCompanion)
	default:
		d.tell(OK, name, "it is the same", "")
	}
	for _, o := range theirs.Overlays {
		if o.State.Status == lease.StatusFailed || o.State.Status == lease.StatusInvalid {
			d.tell(Warn, "overlay "+o.Name, fmt.Sprintf("last reported as %s: %s", o.State.Status, o.State.Error), readCompanion)
		}
	}
}

// subnets are what a holds of each overlay, fixed addresses among it.
func subnets(a lease.Agent) map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	for _, o := range a.Overlays {
		out[o.Name] = o.Destinations()
	}
	return out
}

// firewalls looks at how the host's own rules treat the overlays' packets.
func (d *Doctor) firewalls(ctx context.Context, conf firewall.Config) {
	f := firewall.New()
	underlay6 := d.held.Agent.IP.Is6()
	for _, v6 := range []bool{false, true} {
		sources := conf.Sources4
		if v6 {
			sources = conf.Sources6
		}
		if len(sources) == 0 && v6 != underlay6 {
			continue
		}
		r, err := f.Report(ctx, v6)
		if err != nil {
			d.tell(Fail, "firewall", err.Error(), "install the package iptables; run doctor as root")
			continue
		}
		if len(sources) > 0 {
			d.forwardPolicy(r)
		}
		if v6 == underlay6 {
			d.underlayFirewall(r)
		}
	}
}

func (d *Doctor) forwardPolicy(r firewall.Report) {
	name := r.Program + " FORWARD"
	policy := r.Policy
	if policy == "" {
		policy = "ACCEPT"
	}
	switch {
	case r.First:
		d.tell(OK, name, fmt.Sprintf("policy %s, and overlay traffic is accepted before, by the jump from %s", policy, r.Jump), "")
	case policy == "DROP":
		d.tell(Fail, name, "policy DROP, and overlay traffic does not come to our chain first: it may be dropped", d.repair())
	default:
		d.tell(Warn, name, fmt.Sprintf("policy %s, and overlay traffic does not come to our chain first: other rules decide on it", policy), d.repair())
	}
}

func (d *Doctor) underlayFirewall(r firewall.Report) {
	const name = "underlay firewall"
	if r.Blocked == "" {
		d.tell(OK, name, r.Program+" drops no VXLAN packets", "")
		return
	}
	d.tell(Fail, name, "VXLAN packets (UDP 64000) are dropped: "+r.Blocked,
		fmt.Sprintf("take that away, or accept them before: %s -t %s -I %s -p udp --dport 64000 -j ACCEPT", r.Program, r.Table, r.Chain))
}

// dockerBridge looks at the device, which Docker does not miss when it goes.
func (d *Doctor) dockerBridge(n docker.Network) {
	name := "Docker network " + n.Name
	if _, err := net.InterfaceByName(n.Bridge); err != nil {
		d.tell(Fail, name, fmt.Sprintf("its bridge %s is missing, which Docker does not notice", n.Bridge), d.repair()+"; restart the containers that were on it")
		return
	}
	d.tell(OK, name, "subnets, bridge, options and MTU are right", "")
}

// neighbourTables compares the kernel's limits with the number of peers.
func (d *Doctor) neighbourTables() {
	peers := len(d.known.Agents) - 1
	for _, family := range []string{"ipv4", "ipv6"} {
		limit, err := number("/proc/sys/net/" + family + "/neigh/default/gc_thresh3")
		if errors.Is(err, os.ErrNotExist) {
			continue // only the first network namespace has it
		}
		if err != nil {
			d.tell(Warn, "neighbour table", err.Error(), "run doctor as root")
			continue
		}
		if limit < peers {
			d.tell(Warn, "neighbour table", fmt.Sprintf("net.%s.neigh.default.gc_thresh3 is %d, and there are %d peers", family, limit, peers),
				fmt.Sprintf("sysctl -w net.%s.neigh.default.gc_thresh3=%d", family, 2*peers))
		}
	}
}

// trackedConnections warns before the kernel's table of connections is full:
// it drops the first packet of every new one then, whoever's it is.
func (d *Doctor) trackedConnections() {
	const dir = "/proc/sys/net/netfilter/nf_conntrack_"
	count, countErr := number(dir + "count")
	limit, limitErr := number(dir + "max")
	switch err := errors.Join(countErr, limitErr); {
	case errors.Is(err, os.ErrNotExist): // nothing is tracked yet
	case err != nil:
		d.tell(Warn, trackingName, err.Error(), "run doctor as root")
	default:
		d.tell(tracking(count, limit))
	}
}

const trackingName = "connection tracking"

// tracking is the line of a host that tracks count connections of at most
// limit; 0 is no limit. A connection between containers of two hosts counts
// three times on each, for VXLAN's own packets are tracked, too, each way.
func tracking(count, limit int) (level Level, name, text, remedy string) {
	text = fmt.Sprintf("%d of %d connections", count, limit)
	if limit == 0 || count <= limit/4*3 {
		return OK, trackingName, text, ""
	}
	return Warn, trackingName, text + ": when it is full, the kernel drops every new one", fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*limit)
}

// number reads a file that holds one.
func number(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
