package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/cnierror"
	"github.com/dcos/dcos-overlay/internal/cniresult"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/portmap"
	"github.com/dcos/dcos-overlay/plugins/dcos-overlay/attachment"
)

// check compares what there is of an attachment with prevResult, which may
// have been changed by the plugins that come after us in a chain.
func (p *plugin) check(args *skel.CmdArgs) error {
	return p.run("CHECK", args, func(ctx context.Context, c *call) error {
		prev, err := cniresult.Prev(c.conf.Stdin)
		if err != nil {
			return err
		}
		if prev == nil {
			return cnierror.New(types.ErrInvalidNetworkConfig, errors.New("CHECK without prevResult: the runtime must hand on the result of the ADD"))
		}
		part, err := cniresult.Of(prev, args.IfName)
		if err != nil {
			return cnierror.New(types.ErrInvalidNetworkConfig, err)
		}
		if part.Interface == nil || len(part.Addrs) == 0 {
			return cnierror.New(types.ErrInvalidNetworkConfig, fmt.Errorf("prevResult has no addresses of interface %s in the container: is it of another ADD?", args.IfName))
		}
		if err := errors.Join(c.checkLink(part), c.checkReserved(ctx, part)); err != nil {
			return cnierror.New(cnierror.CodeChanged, fmt.Errorf("container %s: %w: DEL the container, and start it anew", c.owner(), err))
		}
		if len(c.conf.Ports) > 0 {
			program, err := portmap.Find(args.Path)
			if err != nil {
				return err
			}
			if err := c.mapping(program).Check(ctx, prev); err != nil {
				return cnierror.New(cnierror.CodeChanged, err)
			}
		}
		return c.foreignRun(ctx, "CHECK")
	})
}

func (c *call) checkLink(part cniresult.Part) error {
	links, err := attachment.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	want := attachment.Expected{
		Netns:      c.args.Netns,
		IfName:     c.args.IfName,
		HostIfName: attachment.HostIfName(c.args.ContainerID, c.args.IfName),
		Bridge:     c.bridge(),
		Routes:     part.Routes,
	}
	if mac, err := network.ParseMAC(part.Interface.Mac); err == nil {
		want.MAC = &mac
	}
	for _, a := range part.Addrs {
		want.Addrs = append(want.Addrs, a.Prefix)
	}
	return links.Check(want)
}

// checkReserved wants the addresses of our subnets to be the container's.
func (c *call) checkReserved(ctx context.Context, part cniresult.Part) error {
	held, err := c.host.Dir.Held()
	if err != nil {
		return err
	}
	pool, _ := c.host.Pool(held, c.conf.Overlay)
	reserved, err := pool.Held(ctx, c.owner())
	if err != nil {
		return err
	}
	for _, a := range part.Addrs {
		addr := a.Prefix.Addr()
		if _, ours := subnetOf(pool, addr); (ours || !c.foreign()) && !slices.Contains(reserved, addr) {
			return fmt.Errorf("address %s is not reserved for it", addr)
		}
	}
	return c.checkFixed(ctx, held, part)
}

// checkFixed wants those of the addresses that are fixed to be the container's
// by this agent's lease, too, and routed to the bridge.
func (c *call) checkFixed(ctx context.Context, held *agentstate.Held, part cniresult.Part) error {
	if held == nil || c.foreign() {
		return nil
	}
	info, _ := held.Network.Overlay(c.conf.Overlay)
	var fixed []netip.Addr
	for _, a := range part.Addrs {
		if info.IsStatic(a.Prefix.Addr()) {
			fixed = append(fixed, a.Prefix.Addr())
		}
	}
	if len(fixed) == 0 {
		return nil
	}
	o := held.Agent.Overlay(c.conf.Overlay)
	for _, a := range fixed {
		if o == nil || !o.Fixed(a, c.args.ContainerID, c.args.IfName) {
			return fmt.Errorf("the fixed address %s is not this agent's any more: another one has taken it over, or somebody has deleted this agent", a)
		}
	}
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	lacking, _, err := k.CheckFixed(ctx, c.bridge(), fixed)
	if err != nil {
		return fmt.Errorf("look at the routes to fixed addresses: %w", err)
	}
	if len(lacking) > 0 {
		return fmt.Errorf("this host has no route to the fixed addresses %v on bridge %s", lacking, c.bridge())
	}
	return nil
}
