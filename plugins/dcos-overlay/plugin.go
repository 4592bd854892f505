package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/cnierror"
	"github.com/dcos/dcos-overlay/internal/cniresult"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/plugins/dcos-overlay/attachment"
)

// verbTimeout bounds every verb: Mesos has no timeout of its own.
const verbTimeout = 30 * time.Second

type plugin struct {
	log *slog.Logger
	out io.Writer
}

func (p *plugin) add(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), verbTimeout,
		fmt.Errorf("not done within %s", verbTimeout))
	defer cancel()
	conf, h, err := p.open(args)
	if err != nil {
		return err
	}
	result, err := p.attach(ctx, conf, h, args)
	if err != nil {
		return cnierror.Of("ADD", conf.Overlay, err)
	}
	converted, err := result.GetAsVersion(conf.CNIVersion)
	if err != nil {
		return errors.Join(cnierror.Of("ADD", conf.Overlay, err), p.detach(ctx, conf, h, args))
	}
	return converted.PrintTo(p.out)
}

func (p *plugin) open(args *skel.CmdArgs) (*cniconf.Conf, *host.Host, error) {
	conf, err := cniconf.Parse(args.StdinData, args.Args)
	if err != nil {
		return nil, nil, err
	}
	if conf.IPAMType != cniconf.TypeIPAM {
		return nil, nil, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("overlay %s: ipam.type %q is none that dcos-overlay works with: set it to %q", conf.Overlay, conf.IPAMType, cniconf.TypeIPAM), "")
	}
	agent, err := agentconf.Load(conf.AgentConfig)
	if err != nil {
		return conf, nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("overlay %s: %v", conf.Overlay, err), "")
	}
	return conf, host.New(agent, p.log), nil
}

// attach gives the container its address and interface. What it did for this
// container is undone when it fails.
func (p *plugin) attach(ctx context.Context, conf *cniconf.Conf, h *host.Host, args *skel.CmdArgs) (_ *current.Result, err error) {
	links, err := attachment.Open()
	if err != nil {
		return nil, err
	}
	defer links.Close()
	var bridge attachment.Bridge
	ready := func(held *agentstate.Held) bool {
		if _, ok := h.Pool(held, conf.Overlay); !ok || !h.Dir.Ready(conf.Overlay) || !links.Exist(network.VTEPName) {
			return false
		}
		bridge, err = links.Bridge(network.MesosBridgeName(conf.Overlay))
		return err == nil
	}
	held, err := h.Dir.Held()
	if err != nil || !ready(held) {
		if held, err = h.Prepare(ctx, conf.Overlay, ready); err != nil {
			return nil, err
		}
		if !h.Conf.Network.MesosBridge {
			return nil, fmt.Errorf("this agent takes no Mesos containers: network_config.mesos_bridge is false in %s", h.Conf.Path)
		}
		if !ready(held) {
			return nil, fmt.Errorf("bridge %s or device %s vanished right after it was made: what else manages this host's network?",
				network.MesosBridgeName(conf.Overlay), network.VTEPName)
		}
	}
	pool, _ := h.Pool(held, conf.Overlay)
	owner := ipam.Owner{ContainerID: args.ContainerID, IfName: args.IfName}
	where, err := sandbox.Identify(args.Netns)
	if err != nil {
		return nil, fmt.Errorf("attach container %s to %s: %w", args.ContainerID, bridge.Name, err)
	}
	home := &ipam.Home{Netns: where, HostIf: attachment.HostIfName(args.ContainerID, args.IfName)}
	addrs, err := pool.Reserve(ctx, owner, home, conf.Addresses)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, pool.Release(context.WithoutCancel(ctx), owner))
		}
	}()
	a := attachment.Attachment{
		Netns:      args.Netns,
		IfName:     args.IfName,
		HostIfName: home.HostIf,
		Bridge:     bridge,
		MTU:        bridge.MTU,
		MAC:        network.AddrMAC(addrs[0].Prefix.Addr()),
		Addrs:      addrs,
		Routes:     conf.Routes,
		Spaces:     append(held.Network.Spaces(false), held.Network.Spaces(true)...),
	}
	if conf.MAC != nil {
		a.MAC = *conf.MAC
	}
	routes, err := links.Create(a)
	if err != nil {
		return nil, fmt.Errorf("attach container %s to %s: %w", args.ContainerID, bridge.Name, err)
	}
	return resultOf(conf, bridge, a, routes), nil
}

func resultOf(conf *cniconf.Conf, bridge attachment.Bridge, a attachment.Attachment, routes []netip.Prefix) *current.Result {
	result := cniresult.New(conf, a.Addrs, routes)
	result.Interfaces = []*current.Interface{
		{Name: bridge.Name, Mac: bridge.MAC.String(), Mtu: bridge.MTU},
		{Name: a.HostIfName, Mtu: a.MTU},
		{Name: a.IfName, Mac: a.MAC.String(), Mtu: a.MTU, Sandbox: a.Netns},
	}
	for _, ip := range result.IPs {
		ip.Interface = current.Int(len(result.Interfaces) - 1)
	}
	return result
}

// del undoes an ADD, whatever of it is there. Nothing that may be away can
// make it fail: Mesos never gets rid of a container whose DEL fails.
func (p *plugin) del(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), verbTimeout,
		fmt.Errorf("not done within %s", verbTimeout))
	defer cancel()
	conf, h, err := p.open(args)
	if conf == nil {
		return err
	}
	if h == nil {
		// The agent's file is broken, or gone, since the ADD.
		p.log.Warn("DEL goes by the default directories", "error", err)
		h = host.New(agentconf.Config{StateDir: agentconf.DefaultStateDir, RunDir: agentconf.DefaultRunDir}, p.log)
	}
	if err := p.detach(ctx, conf, h, args); err != nil {
		return cnierror.Of("DEL", conf.Overlay, err)
	}
	return nil
}

// detach removes the interface first: an address is given to another container
// only when nobody answers to it any more.
func (p *plugin) detach(ctx context.Context, conf *cniconf.Conf, h *host.Host, args *skel.CmdArgs) error {
	links, err := attachment.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	if err := links.Delete(attachment.HostIfName(args.ContainerID, args.IfName)); err != nil {
		return err
	}
	pool := ipam.Pool{Dir: h.Conf.DataDir(), Overlay: conf.Overlay}
	return pool.Release(context.WithoutCancel(ctx), ipam.Owner{ContainerID: args.ContainerID, IfName: args.IfName})
}
