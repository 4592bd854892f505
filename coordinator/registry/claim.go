package registry

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// maxClaimed bounds how many overlays a claim names: looking for each among
	// all others takes the square of it.
	maxClaimed = 1024
	// maxIDLen bounds an agent's id, in bytes: it is part of a key.
	maxIDLen = 128
	// minMTU is IPv4's least (RFC 791), maxMTU the longest packet.
	minMTU = 68
	maxMTU = 65535
	// newCmps, newOps and newUnits are what the claim of a new agent compares,
	// writes and takes, with one overlay of one family.
	newCmps, newOps, newUnits = 8, 4, 2
)

// Claim leases to the agent at ip what it asks for and does not hold yet, in
// one transaction. Errors that the agent can do something about are
// *api.Error; else the cause is ErrUnavailable or a fault.
func (r *Registry) Claim(ctx context.Context, ip netip.Addr, req api.ClaimRequest) (api.ClaimResponse, error) {
	g, err := r.Grant(ctx, ip, req, func(netip.Addr) error { return nil })
	return g.ClaimResponse, err
}

// Grant is Claim by an agent that may not take over everything: mayMove says
// why not of a lease that its id has at another address. It is called with the
// lock held, and has to be quick.
func (r *Registry) Grant(ctx context.Context, ip netip.Addr, req api.ClaimRequest, mayMove func(from netip.Addr) error) (Grant, error) {
	if err := checkClaim(req); err != nil {
		return Grant{}, err
	}
	var n *network.Network
	var encoded []byte
	var deleting []string
	p, rev, err := r.changeShared(ctx, "claim for agent "+ip.String(), func(x *index) (*plan, error) {
		var err error
		if encoded, err = x.networkJSON(); err != nil {
			return nil, err
		}
		n, deleting = x.net, x.deleting()
		c := claim{index: x, ip: ip, req: req, mayMove: mayMove, now: r.opts.Now(), quarantine: r.opts.Quarantine, ttl: r.opts.AliveTTL}
		return &c.p, c.plan()
	})
	if err != nil {
		return Grant{}, err
	}
	return Grant{
		ClaimResponse: api.ClaimResponse{Agent: *p.agent, Network: *n, Deleting: deleting, Revision: rev},
		record:        p.record, network: encoded,
	}, nil
}

func checkClaim(req api.ClaimRequest) error {
	if !validID(req.ID) {
		return fail(api.CodeInvalid, "the agent's id %q must be 1 to %d letters, digits or any of . _ : -", req.ID, maxIDLen)
	}
	if c := req.NetworkConfig; c != nil && c.OverlayMTU != 0 && (c.OverlayMTU < minMTU || c.OverlayMTU > maxMTU) {
		return fail(api.CodeInvalid, "overlay_mtu is %d: it must be 0 or from %d to %d", c.OverlayMTU, minMTU, maxMTU)
	}
	if n := max(len(req.Overlays), len(req.AtLeast)); n > maxClaimed {
		return fail(api.CodeInvalid, "the claim names %d overlays: at most %d are taken; all_overlays asks for every one", n, maxClaimed)
	}
	for name, n := range req.AtLeast {
		if n.Subnets < 0 || n.Subnets6 < 0 {
			return fail(api.CodeInvalid, "at_least of overlay %s is %d and %d: it must not be negative", name, n.Subnets, n.Subnets6)
		}
		if !slices.Contains(req.Overlays, name) {
			return fail(api.CodeInvalid, "at_least names overlay %q, which is not among overlays", name)
		}
	}
	return nil
}

func validID(id string) bool {
	return id != "" && len(id) <= maxIDLen && !strings.ContainsFunc(id, func(c rune) bool {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		return !letter && (c < '0' || c > '9') && !strings.ContainsRune("._:-", c)
	})
}

func fail(code api.Code, format string, args ...any) *api.Error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// claim is one attempt at a claim.
type claim struct {
	*index
	ip         netip.Addr
	req        api.ClaimRequest
	mayMove    func(from netip.Addr) error
	now        time.Time
	quarantine time.Duration
	// ttl is how long an agent counts as alive.
	ttl time.Duration

	p plan
	a *lease.Agent
	// taken are the units that a gets with this claim.
	taken []unit
	// moved are the units whose owner's address changes.
	moved []unit
}

func (c *claim) plan() error {
	if c.baseRev == 0 {
		return errNoNetwork()
	}
	c.p.read = keyAgent(c.ip)
	// What most claims are: an agent's first.
	c.p.cmps, c.p.ops = make([]condition, 0, newCmps), make([]clientv3.Op, 0, newOps)
	c.p.holds, c.taken = make([]hold, 0, newUnits), make([]unit, 0, newUnits)
	c.p.unchanged(keyNetwork, c.baseRev)
	c.p.unchanged(c.p.read, c.agentRev(c.ip))
	id := c.ids[c.req.ID]
	c.p.unchanged(keyID(c.req.ID), id.rev)
	if err := c.identify(id); err != nil {
		return err
	}
	if c.req.NetworkConfig != nil {
		c.a.Config = *c.req.NetworkConfig
	}
	if err := c.vtep(); err != nil {
		return err
	}
	if err := c.subnets(); err != nil {
		return err
	}
	c.p.agent = c.a
	c.write(id)
	return nil
}

// identify finds the record that the claim is about: the one that has the id,
// moved here if it was elsewhere; else the one at this address, which gets the
// new id; else a new one.
func (c *claim) identify(id idEntry) error {
	here := c.agents[c.ip]
	there := c.agents[id.ip]
	switch {
	case id.rev != 0 && id.ip != c.ip && there != nil && there.ID == c.req.ID:
		// Two machines with one id, as copies of an image have, would else
		// take the lease from each other in turn.
		if _, alive := c.alive[id.ip]; alive {
			return fail(api.CodeConflict, "id %s is asked for by %s and is in use at %s, which has reported within the last %s: if that is this host's old address, the claim succeeds as soon as nothing has reported from there for so long; if it is another host, one of them is a copy: give this one an id of its own by removing its agent-id and lease.json",
				c.req.ID, c.ip, id.ip, c.ttl)
		}
		if err := c.mayMove(id.ip); err != nil {
			return err
		}
		c.p.unchanged(keyAlive(id.ip), 0)
		c.p.unchanged(keyAgent(id.ip), there.rev)
		if here != nil {
			// Whoever was at this address no longer is, for the caller is.
			// What it held rests; it gets anew what it needs where it is now.
			c.p.free(units(here.Agent), c.now)
			if here.ID != c.req.ID {
				c.p.forgetID(here.Agent)
			}
			c.p.remove(keyAlive(c.ip))
		}
		// The old record goes before the new one comes, so that no reader
		// ever sees one subnet at two agents.
		c.p.remove(keyAgent(id.ip))
		c.p.remove(keySilent(id.ip))
		c.p.remove(keyMesos(id.ip))
		c.a = there.Clone()
		c.moved = units(c.a)
	case here != nil:
		c.a = here.Clone()
		if here.ID != c.req.ID {
			c.p.forgetID(here.Agent)
		}
	default:
		c.a = &lease.Agent{Config: lease.DefaultNetworkConfig()}
	}
	c.a.ID, c.a.IP = c.req.ID, c.ip
	return nil
}

// vtep gives the agent the VTEP addresses that it lacks.
func (c *claim) vtep() error {
	v := &c.a.VTEP
	if !v.IP.IsValid() {
		ip, err := c.vtepAddress(c.net.VTEPSubnet)
		if err != nil {
			return err
		}
		v.IP = ip
		if v.MAC, err = c.net.VTEPMAC(ip.Addr()); err != nil {
			return err
		}
	}
	if !v.IP6.IsValid() && c.net.VTEPSubnet6.IsValid() && c.a.Config.EnableIPv6 {
		ip, err := c.vtepAddress(c.net.VTEPSubnet6)
		if err != nil {
			return err
		}
		v.IP6 = ip
	}
	return nil
}

func (c *claim) vtepAddress(space netip.Prefix) (netip.Prefix, error) {
	u, err := c.take(poolID{v6: space.Addr().Is6()})
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("VTEP: %w", err)
	}
	return netip.PrefixFrom(u.Addr(), space.Bits()), nil
}

// subnets gives the agent the subnets that it asks for, and to overlays that
// it holds already the family that it lacks.
func (c *claim) subnets() error {
	for _, name := range c.req.Overlays {
		if err := c.allowed(name); err != nil {
			return err
		}
	}
	for _, o := range c.net.Overlays {
		asked := slices.Contains(c.req.Overlays, o.Name)
		all := c.req.AllOverlays && (o.Subnet.IsValid() || c.a.Config.EnableIPv6)
		held := c.a.Overlay(o.Name) != nil
		if !asked && !all && !held || !o.IsEnabled() || !c.a.Config.AllocateSubnet {
			continue
		}
		err := c.overlay(o)
		if err != nil && (asked || all) {
			return err
		}
	}
	// The state shows overlays in the configured order.
	slices.SortStableFunc(c.a.Overlays, func(a, b lease.Overlay) int {
		return c.place(a.Name) - c.place(b.Name)
	})
	return nil
}

// allowed tells whether the agent may ask for the overlay by name.
func (c *claim) allowed(name string) error {
	o, ok := c.net.Overlay(name)
	switch held := c.a.Overlay(name) != nil; {
	case !ok:
		return fail(api.CodeNotFound, "there is no overlay %q: there are %s", name, c.names())
	case held && !c.wantsMore(o):
		return nil
	case c.overlays[name].Deleting:
		return fail(api.CodeDisabled, "overlay %s is being deleted: nothing is leased from it unless a PUT of %s/%s brings it back", name, api.PathOverlays, name)
	case !o.IsEnabled():
		return fail(api.CodeDisabled, "overlay %s is disabled: nothing is leased from it until it is enabled", name)
	case held:
		return nil
	case !c.a.Config.AllocateSubnet:
		return fail(api.CodeConflict, "agent %s asks for a subnet of overlay %s, but its network_config has allocate_subnet false", c.ip, name)
	case !o.Subnet.IsValid() && !c.a.Config.EnableIPv6:
		return fail(api.CodeConflict, "overlay %s has IPv6 only, but the network_config of agent %s has enable_ipv6 false", name, c.ip)
	}
	return nil
}

func (c *claim) names() string {
	names := make([]string, 0, len(c.net.Overlays))
	for _, o := range c.net.Overlays {
		names = append(names, o.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// wantsMore tells whether the agent asks for more of o than it holds.
func (c *claim) wantsMore(o network.Overlay) bool {
	held, want := c.a.Overlay(o.Name), c.req.AtLeast[o.Name]
	return len(held.Subnets) < want.Subnets || len(held.Subnets6) < want.Subnets6
}

// overlay gives the agent the subnets that it lacks of o: one of each family,
// or as many as it asks for.
func (c *claim) overlay(o network.Overlay) error {
	got := lease.Overlay{Name: o.Name, Split: c.split(o), State: lease.State{Status: lease.StatusConfiguring}}
	held := c.a.Overlay(o.Name)
	if held == nil {
		held = &got
	}
	c.p.unchanged(keyOverlay(o.Name), c.overlays[o.Name].rev)
	want := c.req.AtLeast[o.Name]
	if o.Subnet.IsValid() {
		if err := c.fill(o, &held.Subnets, want.Subnets, poolID{overlay: o.Name}); err != nil {
			return err
		}
	}
	if o.Subnet6.IsValid() && c.a.Config.EnableIPv6 {
		if err := c.fill(o, &held.Subnets6, want.Subnets6, poolID{overlay: o.Name, v6: true}); err != nil {
			return err
		}
	}
	if held == &got {
		c.a.Overlays = append(c.a.Overlays, got)
	}
	return nil
}

// split is how a subnet that the agent gets now is divided.
func (c *claim) split(o network.Overlay) lease.Split {
	if cfg := c.a.Config; !cfg.DockerBridge && !cfg.KeepHalves {
		return lease.Split{Whole: true}
	}
	return lease.Split{DockerPrefix: o.DockerPrefix, DockerPrefix6: o.DockerPrefix6}
}

// fill adds subnets of a pool until there are n, or one.
func (c *claim) fill(o network.Overlay, subnets *[]netip.Prefix, n int, id poolID) error {
	if limit := o.SubnetLimit(); n > limit && len(*subnets) < n {
		return fail(api.CodeExhausted, "overlay %s: agent %s holds %d subnets, and max_subnets lets an agent have %d", o.Name, c.ip, len(*subnets), limit)
	}
	for len(*subnets) < max(1, n) {
		s, err := c.take(id)
		if err != nil {
			return fmt.Errorf("overlay %s: %w", o.Name, err)
		}
		*subnets = append(*subnets, s)
	}
	return nil
}

// take holds the next unit of a pool for the agent.
func (c *claim) take(id poolID) (netip.Prefix, error) {
	pool := c.pool(id)
	prefix, err := pool.Hold(c.now, c.quarantine)
	if err != nil {
		return netip.Prefix{}, err
	}
	c.p.holds = append(c.p.holds, hold{pool: pool, unit: prefix})
	if id.overlay == "" {
		c.taken = append(c.taken, vtepUnit(prefix.Addr()))
	} else {
		c.taken = append(c.taken, subnetUnit(id.overlay, prefix))
	}
	return prefix, nil
}

// write adds to the plan what differs from what is stored.
func (c *claim) write(id idEntry) {
	for _, u := range c.taken {
		c.p.lease(c.index, u, c.ip)
	}
	for _, u := range c.moved {
		if held, fixed := c.addresses[u.address()]; fixed {
			held.Agent = c.ip
			c.p.put(u.key, held.storedAddress)
			continue
		}
		c.p.put(u.key, c.ip)
	}
	if id.ip != c.ip {
		c.p.putIP(keyID(c.req.ID), c.ip)
	}
	if here := c.agents[c.ip]; here == nil || !reflect.DeepEqual(here.Agent, c.a) {
		c.p.record, c.p.writes = c.p.put(keyAgent(c.ip), c.a), true
	} else {
		c.p.record = here.record()
	}
	if _, silent := c.silent[c.ip]; silent {
		c.p.remove(keySilent(c.ip))
	}
	if m := c.mesos[c.ip]; !m.Gone.IsZero() {
		// Whoever claims is there: the grace period begins anew.
		c.p.put(keyMesos(c.ip), storedMesos{ID: m.ID})
	}
}
