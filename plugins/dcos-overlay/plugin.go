package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/cnierror"
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

// call is one run of the plugin.
type call struct {
	log  *slog.Logger
	conf *cniconf.Conf
	host *host.Host
	// args are the runtime's; for GC and STATUS they name no container.
	args *skel.CmdArgs
}

// run does a verb by a configuration and an agent's file that are right.
func (p *plugin) run(verb string, args *skel.CmdArgs, do func(context.Context, *call) error) error {
	ctx, cancel := deadline()
	defer cancel()
	conf, err := cniconf.Parse(args.StdinData, args.Args)
	if err != nil {
		return cnierror.Of(verb, "", err)
	}
	agent, err := agentconf.Load(conf.AgentConfig)
	if err != nil {
		return cnierror.Of(verb, conf.Overlay, cnierror.New(types.ErrInvalidNetworkConfig, err))
	}
	return cnierror.Of(verb, conf.Overlay, do(ctx, &call{p.log, conf, p.hostOf(agent, args), args}))
}

// clean does a verb that takes things away, by whatever there still is of
// configuration. Nothing that may be away can make it fail.
func (p *plugin) clean(verb string, args *skel.CmdArgs, do func(context.Context, *call) error) error {
	ctx, cancel := deadline()
	defer cancel()
	conf, err := cniconf.Identify(args.StdinData)
	if err != nil {
		return &unidentifiedError{cnierror.Of(verb, "", err)}
	}
	agent, err := agentconf.Load(conf.AgentConfig)
	if err != nil {
		// It is broken, or gone, since the ADD.
		p.log.Warn(verb+" goes by the default directories", "error", err)
		agent = agentconf.Config{StateDir: agentconf.DefaultStateDir, RunDir: agentconf.DefaultRunDir}
	}
	return cnierror.Of(verb, conf.Overlay, do(ctx, &call{p.log, conf, p.hostOf(agent, args), args}))
}

// hostOf is the host that agent describes. It asks coordinators by another
// program.
func (p *plugin) hostOf(agent agentconf.Config, args *skel.CmdArgs) *host.Host {
	h := host.New(agent, p.log)
	h.Dial = host.ByErrand(args.Path)
	return h
}

// unidentifiedError says that a configuration names no overlay.
type unidentifiedError struct{ error }

func (e *unidentifiedError) Unwrap() error { return e.error }

func deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), verbTimeout, fmt.Errorf("not done within %s", verbTimeout))
}

func (c *call) owner() ipam.Owner {
	return ipam.Owner{ContainerID: c.args.ContainerID, IfName: c.args.IfName}
}

func (c *call) bridge() string { return network.MesosBridgeName(c.conf.Overlay) }

// networkOf is the CNI network that a reservation was made for.
func (c *call) networkOf(h ipam.Home) string {
	if h.Network == "" {
		return c.conf.Overlay
	}
	return h.Network
}

// checkNetns refuses what is not there, and the host's own namespace: the
// library says so only after the ADD.
func (c *call) checkNetns() error {
	if _, err := os.Stat(c.args.Netns); err != nil {
		return cnierror.New(types.ErrInvalidNetNS, fmt.Errorf("CNI_NETNS: %w: the runtime has to make the container's network namespace first", err))
	}
	if override := strings.ToLower(c.args.NetnsOverride); override != "1" && override != "true" && sandbox.IsOwn(c.args.Netns) {
		return cnierror.New(types.ErrInvalidNetNS, fmt.Errorf("CNI_NETNS: %s is the host's own network namespace", c.args.Netns))
	}
	return nil
}

// del undoes an ADD, whatever of it is there: Mesos never gets rid of a
// container whose DEL fails.
func (p *plugin) del(args *skel.CmdArgs) error {
	err := p.clean("DEL", args, func(ctx context.Context, c *call) error {
		links, err := attachment.Open()
		if err != nil {
			return err
		}
		defer links.Close()
		return c.detach(ctx, links)
	})
	var unknown *unidentifiedError
	if errors.As(err, &unknown) {
		// No ADD got past it.
		p.log.Warn("there is nothing to DEL", "error", err)
		return nil
	}
	return err
}

// detach removes the interface and its port mappings first: an address is
// given to another container only when nothing leads to it any more.
func (c *call) detach(ctx context.Context, links *attachment.Links) error {
	// What was begun is ended, whatever became of the caller's deadline; each
	// part has its own.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), verbTimeout, fmt.Errorf("not done within %s", verbTimeout))
	defer cancel()
	pools := c.host.Pools(c.conf.Overlay)
	err := errors.Join(
		links.Delete(attachment.HostIfName(c.args.ContainerID, c.args.IfName)),
		c.unmapPorts(ctx, pools),
	)
	if err != nil {
		return err
	}
	// Ours is last, for its record tells the next DEL what there is to undo.
	if err := c.foreignDel(ctx, pools); err != nil {
		return err
	}
	if home, _ := c.recorded(pools); home.Fixed {
		return c.host.ReleaseFixed(ctx, c.conf.Overlay, c.owner())
	}
	var errs []error
	for _, p := range pools {
		errs = append(errs, p.Release(ctx, c.owner()))
	}
	return errors.Join(errs...)
}

// recorded is what is on record of where the container lives.
func (c *call) recorded(pools []ipam.Pool) (home ipam.Home, ok bool) {
	for _, p := range pools {
		if home, ok := p.Home(c.owner()); ok {
			return home, true
		}
	}
	return ipam.Home{}, false
}

// spaces are the ranges of all overlays and VTEPs, and own those of the one.
func (c *call) spaces(n network.Network) (all, own []netip.Prefix) {
	all = append(n.Spaces(false), n.Spaces(true)...)
	if o, ok := n.Overlay(c.conf.Overlay); ok {
		for _, p := range []netip.Prefix{o.Subnet, o.Subnet6} {
			if p.IsValid() {
				own = append(own, p.Masked())
			}
		}
	}
	return all, own
}
