package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/cnierror"
	"github.com/dcos/dcos-overlay/internal/cniresult"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
)

// verbTimeout bounds every verb: Mesos has no timeout of its own.
const verbTimeout = 30 * time.Second

type plugin struct {
	log *slog.Logger
	out io.Writer
}

// run does a verb by a configuration and an agent's file that are right.
func (p *plugin) run(verb string, args *skel.CmdArgs, do func(context.Context, *cniconf.Conf, *host.Host) error) error {
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
	return cnierror.Of(verb, conf.Overlay, do(ctx, conf, p.hostOf(agent, args)))
}

// clean does a verb that takes addresses away, by whatever there still is of
// configuration: a DEL that fails would keep the container for ever.
func (p *plugin) clean(verb string, args *skel.CmdArgs, do func(context.Context, *cniconf.Conf, []ipam.Pool) error) error {
	ctx, cancel := deadline()
	defer cancel()
	conf, err := cniconf.Identify(args.StdinData)
	if err != nil {
		return &unidentifiedError{cnierror.Of(verb, "", err)}
	}
	agent, err := agentconf.Load(conf.AgentConfig)
	if err != nil {
		p.log.Warn(verb+" goes by the default directories", "error", err)
		agent = agentconf.Config{StateDir: agentconf.DefaultStateDir, RunDir: agentconf.DefaultRunDir}
	}
	return cnierror.Of(verb, conf.Overlay, do(ctx, conf, host.New(agent, p.log).Pools(conf.Overlay)))
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

func ownerOf(args *skel.CmdArgs) ipam.Owner {
	return ipam.Owner{ContainerID: args.ContainerID, IfName: args.IfName}
}

func (p *plugin) add(args *skel.CmdArgs) error {
	return p.run("ADD", args, func(ctx context.Context, conf *cniconf.Conf, h *host.Host) error {
		// The library says so only after the ADD.
		if override := strings.ToLower(args.NetnsOverride); override != "1" && override != "true" && sandbox.IsOwn(args.Netns) {
			return cnierror.New(types.ErrInvalidNetNS, fmt.Errorf("CNI_NETNS: %s is the host's own network namespace", args.Netns))
		}
		held, err := leased(ctx, conf, h)
		if err != nil {
			return err
		}
		addrs, err := h.Reserve(ctx, held, conf.Overlay, ownerOf(args), p.home(args, conf), conf.Addresses)
		if err != nil {
			return err
		}
		result, err := result(conf, addrs)
		if err != nil {
			pool, _ := h.Pool(held, conf.Overlay)
			return errors.Join(err, pool.Release(context.WithoutCancel(ctx), ownerOf(args)))
		}
		return cniresult.Print(p.out, result)
	})
}

// leased is this agent's lease, with subnets of the overlay, which are claimed
// if need be.
func leased(ctx context.Context, conf *cniconf.Conf, h *host.Host) (*agentstate.Held, error) {
	if err := h.NotePlace(); err != nil {
		return nil, err
	}
	held, err := h.Dir.Held()
	if _, ok := h.Pool(held, conf.Overlay); err == nil && ok && !held.Drains(conf.Overlay) {
		return held, nil
	}
	return h.Lease(ctx, conf.Overlay)
}

func result(conf *cniconf.Conf, addrs []ipam.Address) (types.Result, error) {
	return cniresult.New(conf.DNS, addrs, conf.Routes).GetAsVersion(conf.CNIVersion)
}

// home is where the container lives, or nil. What a main plugin calls a
// namespace is its business; without one, only a DEL frees the address.
func (p *plugin) home(args *skel.CmdArgs, conf *cniconf.Conf) *ipam.Home {
	where, err := sandbox.Identify(args.Netns)
	if err != nil {
		p.log.Warn("the address is not freed if the container vanishes without DEL", "container", args.ContainerID, "error", err)
		return nil
	}
	home := &ipam.Home{Netns: where}
	if conf.Name != conf.Overlay {
		home.Network = conf.Name
	}
	return home
}

func (p *plugin) del(args *skel.CmdArgs) error {
	err := p.clean("DEL", args, func(ctx context.Context, _ *cniconf.Conf, pools []ipam.Pool) error {
		var errs []error
		for _, pool := range pools {
			errs = append(errs, pool.Release(ctx, ownerOf(args)))
		}
		return errors.Join(errs...)
	})
	var unknown *unidentifiedError
	if errors.As(err, &unknown) {
		// No ADD got past it.
		p.log.Warn("there is nothing to DEL", "error", err)
		return nil
	}
	return err
}

// check wants the container to have an address, and those of prevResult that
// are of this agent's subnets to be its own.
func (p *plugin) check(args *skel.CmdArgs) error {
	return p.run("CHECK", args, func(ctx context.Context, conf *cniconf.Conf, h *host.Host) error {
		prev, err := cniresult.Prev(conf.Stdin)
		if err != nil {
			return err
		}
		held, err := h.Dir.Held()
		if err != nil {
			return err
		}
		pool, ok := h.Pool(held, conf.Overlay)
		if !ok {
			return cnierror.New(cnierror.CodeChanged, errors.New("this agent has no lease of it any more"))
		}
		owner := ownerOf(args)
		reserved, err := pool.Held(ctx, owner)
		if err != nil {
			return err
		}
		if len(reserved) == 0 {
			return cnierror.New(cnierror.CodeChanged, fmt.Errorf("no address is reserved for container %s: DEL the container, and start it anew", owner))
		}
		if prev == nil {
			return nil
		}
		part, err := cniresult.Of(prev, args.IfName)
		if err != nil {
			return cnierror.New(types.ErrInvalidNetworkConfig, err)
		}
		for _, a := range part.Addrs {
			if addr := a.Prefix.Addr(); pool.Contains(addr) && !slices.Contains(reserved, addr) {
				return cnierror.New(cnierror.CodeChanged, fmt.Errorf("address %s is not reserved for container %s: DEL the container, and start it anew", addr, owner))
			}
		}
		return nil
	})
}

// gc frees the addresses of containers of the network that the runtime does
// not list. Those that dcos-overlay gave are its own to free, with the link.
func (p *plugin) gc(args *skel.CmdArgs) error {
	return p.clean("GC", args, func(ctx context.Context, conf *cniconf.Conf, pools []ipam.Pool) error {
		valid, told, err := conf.Attachments()
		if err != nil {
			return err
		}
		if !told {
			p.log.Warn("GC does nothing, for the runtime does not say which attachments are valid")
			return nil
		}
		var errs []error
		for _, pool := range pools {
			entries, err := pool.Entries(ctx)
			errs = append(errs, err)
			for _, e := range entries {
				network := conf.Overlay
				if e.Home.Network != "" {
					network = e.Home.Network
				}
				attachment := types.GCAttachment{ContainerID: e.Owner.ContainerID, IfName: e.Owner.IfName}
				if network == conf.Name && e.Home.HostIf == "" && !valid[attachment] {
					errs = append(errs, pool.Release(ctx, e.Owner))
				}
			}
		}
		return errors.Join(errs...)
	})
}

func (p *plugin) status(args *skel.CmdArgs) error {
	return p.run("STATUS", args, func(ctx context.Context, conf *cniconf.Conf, h *host.Host) error {
		return cnierror.Status(conf.Overlay, h.Available(ctx, conf.Overlay, true), false)
	})
}
