package main

import (
	"context"
	"errors"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/plugins/dcos-overlay/attachment"
)

// gc detaches all containers of the network that the runtime does not list.
func (p *plugin) gc(args *skel.CmdArgs) error {
	return p.clean("GC", args, func(ctx context.Context, c *call) error {
		valid, told, err := c.conf.Attachments()
		if err != nil {
			return err
		}
		if !told {
			c.log.Warn("GC does nothing, for the runtime does not say which attachments are valid")
			return nil
		}
		links, err := attachment.Open()
		if err != nil {
			return err
		}
		defer links.Close()
		stale, known, err := c.stale(ctx, valid)
		errs := []error{err}
		for _, owner := range stale {
			of := *c
			of.args = &skel.CmdArgs{ContainerID: owner.ContainerID, IfName: owner.IfName, Path: args.Path, StdinData: args.StdinData}
			errs = append(errs, of.detach(ctx, links))
		}
		// Without the reservations it can't be told whose a veth is.
		if err == nil {
			errs = append(errs, c.sweep(links, valid, known))
		}
		return errors.Join(append(errs, c.foreignRun(ctx, "GC"))...)
	})
}

// stale are the owners in the network that are not valid. known are the host's
// ends of the links of all others, of whichever network.
func (c *call) stale(ctx context.Context, valid map[types.GCAttachment]bool) (stale []ipam.Owner, known []string, err error) {
	var errs []error
	for _, p := range c.host.Pools(c.conf.Overlay) {
		entries, err := p.Entries(ctx)
		errs = append(errs, err)
		for _, e := range entries {
			switch {
			case c.networkOf(e.Home) != c.conf.Name, valid[types.GCAttachment{ContainerID: e.Owner.ContainerID, IfName: e.Owner.IfName}]:
				known = append(known, attachment.HostIfName(e.Owner.ContainerID, e.Owner.IfName))
			case !slices.Contains(stale, e.Owner):
				stale = append(stale, e.Owner)
			}
		}
	}
	return stale, known, errors.Join(errs...)
}

// sweep removes links to the overlay's bridge that nobody has: those of
// containers whose reservations were lost. A network of another name than the
// overlay's has none, for it can't be told which network they were of.
func (c *call) sweep(links *attachment.Links, valid map[types.GCAttachment]bool, known []string) error {
	if c.conf.Name != c.conf.Overlay {
		return nil
	}
	for a := range valid {
		known = append(known, attachment.HostIfName(a.ContainerID, a.IfName))
	}
	there, err := links.On(c.bridge())
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range there {
		if !slices.Contains(known, name) {
			errs = append(errs, links.Delete(name))
		}
	}
	return errors.Join(errs...)
}
