// Command dcos-ipam is the CNI IPAM plugin that hands out addresses of the
// subnets that this agent holds of an overlay. dcos-overlay runs the same code
// in its own process; other main plugins exec this one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/cnierror"
	"github.com/dcos/dcos-overlay/internal/cniresult"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
)

// verbTimeout bounds every verb: Mesos has no timeout of its own.
const verbTimeout = 30 * time.Second

func main() {
	p := &plugin{
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		out: os.Stdout,
	}
	skel.PluginMainFuncs(skel.CNIFuncs{Add: p.add, Del: p.del}, version.All,
		"CNI plugin dcos-ipam: addresses of this agent's overlay subnets")
}

type plugin struct {
	log *slog.Logger
	out io.Writer
}

func (p *plugin) add(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), verbTimeout,
		fmt.Errorf("not done within %s", verbTimeout))
	defer cancel()
	conf, err := cniconf.Parse(args.StdinData, args.Args)
	if err != nil {
		return err
	}
	agent, err := agentconf.Load(conf.AgentConfig)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("overlay %s: %v", conf.Overlay, err), "")
	}
	result, err := reserve(ctx, conf, host.New(agent, p.log), ownerOf(args), p.home(args))
	if err != nil {
		return cnierror.Of("ADD", conf.Overlay, err)
	}
	converted, err := result.GetAsVersion(conf.CNIVersion)
	if err != nil {
		pool := ipam.Pool{Dir: agent.DataDir(), Overlay: conf.Overlay}
		return errors.Join(cnierror.Of("ADD", conf.Overlay, err), pool.Release(ctx, ownerOf(args)))
	}
	return converted.PrintTo(p.out)
}

func reserve(ctx context.Context, conf *cniconf.Conf, h *host.Host, owner ipam.Owner, home *ipam.Home) (*current.Result, error) {
	held, err := h.Dir.Held()
	pool, ok := h.Pool(held, conf.Overlay)
	if err != nil || !ok {
		if held, err = h.Lease(ctx, conf.Overlay); err != nil {
			return nil, err
		}
		pool, _ = h.Pool(held, conf.Overlay)
	}
	addrs, err := pool.Reserve(ctx, owner, home, conf.Addresses)
	if err != nil {
		return nil, err
	}
	return cniresult.New(conf, addrs, conf.Routes), nil
}

func (p *plugin) del(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), verbTimeout,
		fmt.Errorf("not done within %s", verbTimeout))
	defer cancel()
	conf, err := cniconf.Parse(args.StdinData, args.Args)
	if err != nil {
		return err
	}
	agent, err := agentconf.Load(conf.AgentConfig)
	if err != nil {
		// The agent's file is broken, or gone, since the ADD; a DEL that
		// fails would keep the container for ever.
		p.log.Warn("DEL goes by the default directories", "error", err)
		agent = agentconf.Config{StateDir: agentconf.DefaultStateDir, RunDir: agentconf.DefaultRunDir}
	}
	pool := ipam.Pool{Dir: agent.DataDir(), Overlay: conf.Overlay}
	return cnierror.Of("DEL", conf.Overlay, pool.Release(ctx, ownerOf(args)))
}

// home is where the container lives, or nil. What a main plugin calls a
// namespace is its business; without one, only a DEL frees the address.
func (p *plugin) home(args *skel.CmdArgs) *ipam.Home {
	where, err := sandbox.Identify(args.Netns)
	if err != nil {
		p.log.Warn("the address is not freed if the container vanishes without DEL", "container", args.ContainerID, "error", err)
		return nil
	}
	return &ipam.Home{Netns: where}
}

func ownerOf(args *skel.CmdArgs) ipam.Owner {
	return ipam.Owner{ContainerID: args.ContainerID, IfName: args.IfName}
}
