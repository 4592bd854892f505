package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// hurryEvery is how often an agent with fixed addresses reports while no
// coordinator answers: one of them may go to another agent meanwhile, and has
// to be given up soon after the way is free again.
const hurryEvery = 500 * time.Millisecond

// moveEvery is how often at most the routes are brought up to date between two
// passes.
const moveEvery = 50 * time.Millisecond

// followMoves changes the routes to other agents at once where a fixed address
// has moved: whoever waits for it should not have to wait for a pass. What
// fails the next pass does, and tells of.
func (a *Agent) followMoves(ctx context.Context) {
	held, moved := a.known(), a.Follower.Fixed()
	if held == nil || maps.Equal(moved, a.moved) {
		return
	}
	a.moved = moved
	view := a.Follower.View()
	if !view.Synced {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxRest)
	defer cancel()
	unlock, err := a.Host.Dir.Lock(ctx)
	if err != nil {
		return
	}
	defer unlock()
	k, err := kernel.Open()
	if err != nil {
		return
	}
	defer k.Close()
	stats, err := k.SyncPeers(ctx, network.VTEPName, dataplane.PeersOf(held.Agent.IP, view.Agents))
	a.Log.Debug("fixed addresses have moved", "changes", stats.Changes.Sets()+stats.Changes.Deletes(), "error", err)
}

// hurry is the pause after so many reports that failed, which would be d.
func (a *Agent) hurry(failures int, d time.Duration) time.Duration {
	if failures > 0 && a.hasFixed() {
		return min(d, hurryEvery)
	}
	return d
}

// hasFixed tells whether this agent holds fixed addresses, as of the last pass.
func (a *Agent) hasFixed() bool {
	held := a.known()
	return held != nil && slices.ContainsFunc(held.Agent.Overlays, func(o lease.Overlay) bool { return len(o.Addresses) > 0 })
}

// fixed brings the fixed addresses that containers on this host have and those
// that the coordinator says they have together. It answers what is held then.
// It needs the host's lock.
//
// An ADD reserves an address here before it claims it, and makes the link after
// that; a DEL frees it here before it tells the coordinator. So one that is
// claimed and not reserved is left over from a DEL, or from before a boot; and
// one that a container with a link has, and that is not claimed, is another
// agent's by now, or was lost with etcd's data.
func (a *Agent) fixed(ctx context.Context, held *agentstate.Held, done *host.Outcome) (*agentstate.Held, error) {
	var errs []error
	for _, info := range held.Network.Overlays {
		if len(info.Statics()) == 0 {
			continue
		}
		here, err := a.Host.FixedHere(ctx, info)
		if err == nil {
			err = a.returnFixed(ctx, held, info, here)
		}
		if err == nil {
			held, err = a.keepFixed(ctx, held, info, here, done)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("overlay %s: %w", info.Name, err))
		}
	}
	return held, errors.Join(errs...)
}

// returnFixed tells the coordinator of the addresses that no container here
// has. The record that lists them no longer comes by the stream.
func (a *Agent) returnFixed(ctx context.Context, held *agentstate.Held, info network.Overlay, here []ipam.Entry) error {
	o := held.Agent.Overlay(info.Name)
	if o == nil {
		return nil
	}
	var errs []error
	for _, fixed := range o.Addresses {
		owner := ipam.Owner{ContainerID: fixed.Container, IfName: fixed.Interface}
		if slices.ContainsFunc(here, func(e ipam.Entry) bool { return e.Addr == fixed.IP && e.Owner == owner }) {
			continue
		}
		errs = append(errs, a.giveBackFixed(ctx, held, info.Name, fixed))
	}
	return errors.Join(errs...)
}

func (a *Agent) giveBackFixed(ctx context.Context, held *agentstate.Held, overlay string, fixed lease.Address) error {
	client, err := a.clients.to(a.Host, held.Agent.IP)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	if err := client.ReleaseAddress(ctx, held.Agent.IP, overlay, fixed.IP, fixed.Container, fixed.Interface); err != nil {
		return fmt.Errorf("give back the fixed address %s, which no container has: %w", fixed.IP, err)
	}
	a.Log.Info("a fixed address that no container has is given back", "overlay", overlay, "address", fixed.IP, "container", fixed.Container)
	return nil
}

// keepFixed claims anew the addresses that containers here have without being
// listed, and takes those off the network whose address is another's.
func (a *Agent) keepFixed(ctx context.Context, held *agentstate.Held, info network.Overlay, here []ipam.Entry, done *host.Outcome) (*agentstate.Held, error) {
	k, err := kernel.Open()
	if err != nil {
		return held, err
	}
	defer k.Close()
	var errs []error
	for _, e := range here {
		if o := held.Agent.Overlay(info.Name); o != nil && o.Fixed(e.Addr, e.Owner.ContainerID, e.Owner.IfName) {
			continue
		}
		if !k.Connected(e.Home.HostIf) {
			if e.Home.HostIf != "" && k.Exists(e.Home.HostIf) {
				done.Warnings = append(done.Warnings, fmt.Sprintf("fixed address %s of overlay %s went to another agent, and container %s here is off the network: stop it", e.Addr, info.Name, e.Owner.ContainerID))
			}
			continue
		}
		fresh, err := a.claimFixed(ctx, held, info.Name, e)
		var refused *ipam.RequestError
		switch {
		case errors.As(err, &refused):
			errs = append(errs, a.cutOff(ctx, k, info.Name, e, refused, done))
		case err != nil:
			errs = append(errs, err)
		default:
			held = fresh
			a.Log.Info("a fixed address that a container here has is claimed anew", "overlay", info.Name, "address", e.Addr, "container", e.Owner.ContainerID)
		}
	}
	return held, errors.Join(errs...)
}

func (a *Agent) claimFixed(ctx context.Context, held *agentstate.Held, overlay string, e ipam.Entry) (*agentstate.Held, error) {
	client, err := a.clients.to(a.Host, held.Agent.IP)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	return a.Host.ClaimFixed(ctx, client, held.Agent.IP, overlay, e.Addr, e.Owner, nil)
}

// cutOff takes a container off the network whose address is another's.
func (a *Agent) cutOff(ctx context.Context, k *kernel.Kernel, overlay string, e ipam.Entry, why error, done *host.Outcome) error {
	if _, err := k.Disconnect(ctx, e.Home.HostIf); err != nil {
		return fmt.Errorf("take container %s, whose fixed address %s is another's, off the network: %w", e.Owner.ContainerID, e.Addr, err)
	}
	a.Log.Error("a container is taken off the network, for its fixed address went to another agent: stop it", "overlay", overlay, "address", e.Addr, "container", e.Owner.ContainerID, "because", oneLine(why))
	done.Repairs = append(done.Repairs, host.Repair{
		Kind: host.KindDevice,
		What: fmt.Sprintf("%s, the link of container %s, is set down, for the fixed address %s is another's", e.Home.HostIf, e.Owner.ContainerID, e.Addr),
	})
	return nil
}
