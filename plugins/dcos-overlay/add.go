package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/cnierror"
	"github.com/dcos/dcos-overlay/internal/cniresult"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/portmap"
	"github.com/dcos/dcos-overlay/plugins/dcos-overlay/attachment"
)

func (p *plugin) add(args *skel.CmdArgs) error {
	return p.run("ADD", args, func(ctx context.Context, c *call) error {
		result, err := c.attach(ctx)
		if err != nil {
			return err
		}
		return cniresult.Print(p.out, result)
	})
}

// grant is what an IPAM plugin, ours or another, gives a container.
type grant struct {
	addrs  []ipam.Address
	routes []netip.Prefix
	dns    types.DNS
}

// attach gives the container its addresses, its interface and its ports, and
// answers the result in the version that is asked for. What it did for this
// container is undone when it fails.
func (c *call) attach(ctx context.Context) (_ types.Result, err error) {
	prev, err := cniresult.Prev(c.conf.Stdin)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.checkNetns(), c.checkForeign()); err != nil {
		return nil, err
	}
	home := &ipam.Home{HostIf: attachment.HostIfName(c.args.ContainerID, c.args.IfName)}
	if len(c.conf.Ports) > 0 {
		if home.PortMapper, err = portmap.Find(c.args.Path); err != nil {
			return nil, err
		}
	}
	if c.conf.Name != c.conf.Overlay {
		home.Network = c.conf.Name
	}
	links, err := attachment.Open()
	if err != nil {
		return nil, err
	}
	defer links.Close()
	// A report of the host's set-up goes on beside the container's.
	defer c.host.Wait()
	held, bridge, err := c.prepare(ctx, links)
	if err != nil {
		return nil, err
	}
	if home.Netns, err = sandbox.Identify(c.args.Netns); err != nil {
		return nil, cnierror.New(types.ErrInvalidNetNS, fmt.Errorf("attach container %s to %s: %w", c.args.ContainerID, bridge.Name, err))
	}
	// A container that is attached keeps what it has: nothing of it may be
	// undone below.
	if links.Exist(home.HostIf) {
		return nil, cnierror.New(cnierror.CodeDuplicate, fmt.Errorf("container %s is attached already: DEL it before another ADD", c.owner()))
	}
	granted, err := c.reserve(ctx, held, home)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.detach(ctx, links))
		}
	}()
	result, err := c.connect(links, bridge, home, held.Network, granted)
	if err != nil {
		return nil, err
	}
	if len(c.conf.Ports) > 0 {
		if err := c.mapping(home.PortMapper).Add(ctx, result); err != nil {
			return nil, cnierror.New(cnierror.CodePortMapping, err)
		}
	}
	if prev != nil {
		result = cniresult.After(prev, result)
	}
	return result.GetAsVersion(c.conf.CNIVersion)
}

// prepare sees to the lease and to the host's part.
func (c *call) prepare(ctx context.Context, links *attachment.Links) (held *agentstate.Held, bridge attachment.Bridge, err error) {
	h := c.host
	ready := func(held *agentstate.Held) bool {
		if _, ok := h.Pool(held, c.conf.Overlay); !ok || held.Drains(c.conf.Overlay) || !h.Dir.Ready(c.conf.Overlay) || !links.Exist(network.VTEPName) {
			return false
		}
		bridge, err = links.Bridge(c.bridge())
		return err == nil
	}
	held, err = h.Dir.Held()
	if err != nil || !ready(held) {
		if held, err = h.Prepare(ctx, c.conf.Overlay, ready); err != nil {
			return nil, bridge, err
		}
		if !h.Conf.Network.MesosBridge {
			return nil, bridge, c.noBridge()
		}
		if !ready(held) {
			return nil, bridge, fmt.Errorf("bridge %s or device %s vanished right after it was made: what else manages this host's network?",
				c.bridge(), network.VTEPName)
		}
	}
	return held, bridge, c.host.NotePlace()
}

func (c *call) noBridge() error {
	return fmt.Errorf("this agent takes no Mesos containers: network_config.mesos_bridge is false in %s", c.host.Conf.Path)
}

// reserve gets the container's addresses. What it did when it fails is undone.
func (c *call) reserve(ctx context.Context, held *agentstate.Held, home *ipam.Home) (grant, error) {
	if c.foreign() {
		pool, err := c.host.Offered(held, c.conf.Overlay)
		if err != nil {
			return grant{}, err
		}
		return c.foreignAdd(ctx, pool, home)
	}
	wish := host.Wish{Addresses: c.conf.Addresses, Labels: c.conf.Labels}
	addrs, err := c.host.ReserveWish(ctx, held, c.conf.Overlay, c.owner(), home, wish)
	return grant{addrs: addrs, routes: c.conf.Routes, dns: c.conf.DNS}, err
}

// connect makes the interface.
func (c *call) connect(links *attachment.Links, bridge attachment.Bridge, home *ipam.Home, n network.Network, g grant) (*current.Result, error) {
	a := attachment.Attachment{
		Netns:      c.args.Netns,
		IfName:     c.args.IfName,
		HostIfName: home.HostIf,
		Bridge:     bridge,
		MTU:        bridge.MTU,
		MAC:        network.AddrMAC(g.addrs[0].Prefix.Addr()),
		Addrs:      g.addrs,
		Routes:     g.routes,
	}
	a.Spaces, a.Own = c.spaces(n)
	if c.conf.MAC != nil {
		a.MAC = *c.conf.MAC
	}
	routes, err := links.Create(a)
	if errors.Is(err, attachment.ErrExists) {
		err = cnierror.New(cnierror.CodeDuplicate, err)
	}
	if err != nil {
		return nil, fmt.Errorf("attach container %s to %s: %w", c.args.ContainerID, bridge.Name, err)
	}
	result := cniresult.New(g.dns, g.addrs, routes)
	result.Interfaces = []*current.Interface{
		{Name: bridge.Name, Mac: bridge.MAC.String(), Mtu: bridge.MTU},
		{Name: a.HostIfName, Mtu: a.MTU},
		{Name: a.IfName, Mac: a.MAC.String(), Mtu: a.MTU, Sandbox: a.Netns},
	}
	for _, ip := range result.IPs {
		ip.Interface = current.Int(len(result.Interfaces) - 1)
	}
	return result, nil
}

// mapping are the container's ports, for portmap at program.
func (c *call) mapping(program string) portmap.Mapping {
	return portmap.Mapping{
		Program:     program,
		CNIPath:     c.args.Path,
		Version:     c.conf.CNIVersion,
		Network:     c.conf.Name,
		ContainerID: c.args.ContainerID,
		IfName:      c.args.IfName,
		Netns:       c.args.Netns,
		Ports:       slices.Clone(c.conf.Ports),
	}
}

// unmapPorts removes the port mappings, if there are any by the record or,
// where there is no record, by the configuration.
func (c *call) unmapPorts(ctx context.Context, pools []ipam.Pool) error {
	home, recorded := c.recorded(pools)
	if recorded && home.PortMapper == "" || !recorded && len(c.conf.Ports) == 0 {
		return nil
	}
	program, err := portmap.Find(c.args.Path)
	if err != nil && recorded {
		// The runtime has moved its plugins since the ADD.
		program, err = home.PortMapper, nil
	}
	if err != nil {
		// Without it there was no ADD, or a boot has been since.
		c.log.Warn("no port mappings are removed", "error", err)
		return nil
	}
	if err := c.mapping(program).Remove(ctx); err != nil {
		return cnierror.New(cnierror.CodePortMapping, fmt.Errorf("%w: the address stays reserved, for the host's ports may still lead to it", err))
	}
	// It can't keep a container from being removed.
	if err := c.forgetFlows(ctx, pools); err != nil {
		c.log.Warn("clients of mapped ports may reach the next container with the address", "error", err)
	}
	return nil
}

// forgetFlows ends what comes in by the rules that were.
func (c *call) forgetFlows(ctx context.Context, pools []ipam.Pool) error {
	var addrs []netip.Addr
	var errs []error
	for _, p := range pools {
		held, err := p.Held(ctx, c.owner())
		addrs, errs = append(addrs, held...), append(errs, err)
	}
	return errors.Join(append(errs, portmap.ForgetFlows(addrs))...)
}
