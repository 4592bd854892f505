package agent

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// claimTimeout bounds a claim of a host without lease, which has nothing
	// else to do; renewTimeout one of a host with a lease, on which repairs
	// wait meanwhile.
	claimTimeout = 10 * time.Second
	renewTimeout = 2 * time.Second
)

// claim is how far the coordinator has confirmed the lease.
type claim struct {
	done bool
	// answers is how many there were since the start.
	answers int
	// failures in a row, the last one, and when to try again.
	failures int
	err      error
	next     time.Time
}

// wantsAll tells whether this host takes a subnet of every overlay without
// being asked by a container: for Docker networks, and as DC/OS's masters do.
func (a *Agent) wantsAll() bool {
	c := a.Host.Conf.Network
	return c.AllocateSubnet && (c.DockerBridge || !c.MesosBridge)
}

// lease answers what this host holds: what is on disk, brought up to the
// coordinator's word, and claimed where something is wanted and missing. It may
// answer a lease and an error: then the one on disk holds. Nothing held and
// nothing wanted is nil without error.
func (a *Agent) lease(ctx context.Context, view *peers.View) (*agentstate.Held, error) {
	held, err := a.Host.Dir.Held()
	if text := errorText(err); a.said.news("lease on disk", text) && err != nil {
		a.Log.Warn("the lease on disk is of no use and claimed anew", "error", err)
	}
	ip, err := a.Host.Conf.AgentIP()
	if err != nil {
		return held, err
	}
	wanted := wanted(held, view)
	// A host that takes no subnets takes a VTEP, and so reaches those of others;
	// one that waits for its first container takes nothing before it comes.
	if a.Host.Conf.Network.AllocateSubnet && !a.wantsAll() && (held == nil || len(held.Agent.Overlays) == 0) {
		return held, nil
	}
	if held != nil && held.Agent.IP == ip && a.claim.done && !a.missing(held, view) {
		return a.refreshed(held, view)
	}
	if held != nil && time.Now().Before(a.claim.next) {
		return held, a.claim.err
	}
	timeout := claimTimeout
	if held != nil {
		timeout = renewTimeout
	}
	fresh, err := a.renew(ctx, ip, wanted, timeout)
	if err != nil {
		a.claim.failures++
		a.claim.next = time.Now().Add(pause(a.claim.failures, a.Interval))
		a.claim.err = fmt.Errorf("claim for agent %s: %w", ip, err)
		return held, a.claim.err
	}
	a.claim = claim{done: true, answers: a.claim.answers + 1}
	if held == nil || !sameGrant(held.Agent, fresh.Agent) {
		a.Log.Info("lease", "agent", ip, "vtep", fresh.Agent.VTEP.IP, "overlays", len(fresh.Agent.Overlays), "revision", fresh.Revision)
	}
	return fresh, nil
}

// wanted are the overlays to claim of those that are held. One that is not
// leased from any more would have the claim refused, and is kept without it as
// long as the coordinator lets us.
func wanted(held *agentstate.Held, view *peers.View) (out []string) {
	if held == nil {
		return nil
	}
	for _, o := range held.Agent.Overlays {
		info, there := view.Network.Overlay(o.Name)
		if !view.Connected || there && info.IsEnabled() {
			out = append(out, o.Name)
		}
	}
	return out
}

func (a *Agent) renew(ctx context.Context, ip netip.Addr, overlays []string, timeout time.Duration) (*agentstate.Held, error) {
	client, err := a.clients.to(a.Host, ip)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	fresh, err := a.Host.Claim(ctx, client, ip, overlays, a.wantsAll())
	if apiclient.IsCode(err, api.CodeNotFound) || apiclient.IsCode(err, api.CodeDisabled) {
		// An overlay that we held was taken from us: the rest is still ours.
		fresh, err = a.Host.Claim(ctx, client, ip, nil, a.wantsAll())
	}
	return fresh, err
}

// missing tells whether the coordinator's word gives a reason to claim again.
func (a *Agent) missing(held *agentstate.Held, view *peers.View) bool {
	if !view.Connected || view.Revision < held.Revision {
		return false
	}
	self, ok := view.Agent(held.Agent.IP)
	if !ok || self.ID != held.Agent.ID {
		return true
	}
	if !a.wantsAll() {
		return false
	}
	return slices.ContainsFunc(view.Network.Overlays, func(o network.Overlay) bool {
		family := o.Subnet.IsValid() || a.Host.Conf.Network.EnableIPv6
		return o.IsEnabled() && family && self.Overlay(o.Name) == nil
	})
}

// refreshed is held as the stream knows it, when that is newer.
func (a *Agent) refreshed(held *agentstate.Held, view *peers.View) (*agentstate.Held, error) {
	self, ok := view.Agent(held.Agent.IP)
	if !ok || !view.Connected || view.Revision <= held.Revision {
		return held, nil
	}
	fresh := &agentstate.Held{Agent: self, Network: view.Network, Deleting: view.Deleting, Revision: view.Revision}
	if sameGrant(fresh.Agent, held.Agent) && reflect.DeepEqual(fresh.Network, held.Network) && slices.Equal(fresh.Deleting, held.Deleting) {
		return held, nil
	}
	if err := a.Host.Dir.Save(fresh); err != nil {
		return held, err
	}
	return fresh, nil
}

// sameGrant tells whether two records of an agent grant the same.
func sameGrant(x, y lease.Agent) bool {
	return reflect.DeepEqual(withoutStates(x), withoutStates(y))
}

func withoutStates(a lease.Agent) lease.Agent {
	c := a.Clone()
	for i := range c.Overlays {
		c.Overlays[i].State = lease.State{}
	}
	return *c
}

// clients keeps a client for this host's address. The zero value has none.
type clients struct {
	client *apiclient.Client
	ip     netip.Addr
}

// to is a client that calls from ip.
func (c *clients) to(h *host.Host, ip netip.Addr) (*apiclient.Client, error) {
	if c.client != nil && c.ip == ip {
		return c.client, nil
	}
	client, err := apiclient.ForAgent(h.Conf, ip)
	if err != nil {
		return nil, err
	}
	c.close()
	c.client, c.ip = client, ip
	return client, nil
}

func (c *clients) close() {
	if c.client != nil {
		c.client.Close()
	}
	c.client = nil
}
