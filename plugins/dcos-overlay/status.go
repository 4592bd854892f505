package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/dcos/dcos-overlay/internal/cnierror"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/plugins/dcos-overlay/attachment"
)

// status tells why an ADD would fail. It looks and changes nothing; what an
// ADD would mend is no reason.
func (p *plugin) status(args *skel.CmdArgs) error {
	return p.run("STATUS", args, func(ctx context.Context, c *call) error {
		err := c.obstacle(ctx)
		if err == nil {
			return nil
		}
		limited, lookErr := c.limited(ctx)
		return cnierror.Status(c.conf.Overlay, errors.Join(err, lookErr), limited)
	})
}

// obstacle is why the overlay can't take a container now.
func (c *call) obstacle(ctx context.Context) error {
	if !c.host.Conf.Network.MesosBridge {
		return c.noBridge()
	}
	if err := c.checkForeign(); err != nil {
		return err
	}
	if err := c.host.Available(ctx, c.conf.Overlay, !c.foreign()); err != nil {
		return err
	}
	return c.foreignRun(ctx, "STATUS")
}

// limited tells whether containers of the overlay can't reach all they should:
// the host was set up, and the devices are gone.
func (c *call) limited(ctx context.Context) (bool, error) {
	if !c.host.Dir.Ready(c.conf.Overlay) {
		return false, nil
	}
	links, err := attachment.Open()
	if err != nil {
		return false, err
	}
	defer links.Close()
	if links.Exist(network.VTEPName) && links.Exist(c.bridge()) {
		return false, nil
	}
	for _, p := range c.host.Pools(c.conf.Overlay) {
		entries, err := p.Entries(ctx)
		if err != nil {
			return false, fmt.Errorf("count the overlay's containers: %w", err)
		}
		if len(entries) > 0 {
			return true, nil
		}
	}
	return false, nil
}
