package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
)

// releaseTimeout bounds how long a DEL waits for the coordinator's word that a
// fixed address is free: without it the companion tells it later.
const releaseTimeout = 2 * time.Second

// poolFor is Offered, with the ranges of fixed addresses where the container
// asks for one of them.
func (h *Host) poolFor(held *agentstate.Held, overlay string, home *ipam.Home) (ipam.Pool, error) {
	pool, err := h.Offered(held, overlay)
	if home != nil && home.Fixed && held != nil {
		o, _ := held.Network.Overlay(overlay)
		pool.Fixed = o.Statics()
	}
	return pool, err
}

// Wish is what a container asks for.
type Wish struct {
	// Addresses are those that it wants, one of each family at most.
	Addresses []netip.Addr
	// Labels are its labels, by which it gets addresses that are reserved.
	Labels []string
}

// ReserveWish is Reserve for a container that gets a link to the overlay's
// bridge: it may ask for fixed addresses, too. These are reserved on this host
// before they are claimed of the coordinator, so that a companion never finds
// one claimed that nobody here has.
func (h *Host) ReserveWish(ctx context.Context, held *agentstate.Held, overlay string, owner ipam.Owner, home *ipam.Home, w Wish) ([]ipam.Address, error) {
	o, _ := held.Network.Overlay(overlay)
	pool, _ := h.Pool(held, overlay)
	var fixed []netip.Addr
	for _, a := range w.Addresses {
		switch {
		case o.IsStatic(a):
			fixed = append(fixed, a)
		case len(o.Statics()) > 0 && !pool.Contains(a):
			home.Fixed = true // the error tells of these ranges, too
		}
	}
	home.Fixed = home.Fixed || len(fixed) > 0
	addrs, err := h.Reserve(ctx, held, overlay, owner, home, w.Addresses)
	if err != nil || len(fixed) == 0 {
		return addrs, err
	}
	if err := h.claimFixed(ctx, held.Agent.IP, overlay, owner, fixed, w.Labels); err != nil {
		return nil, errors.Join(err, h.ReleaseFixed(context.WithoutCancel(ctx), overlay, owner))
	}
	return addrs, nil
}

// claimFixed claims fixed addresses, and has this host route them to the
// overlay's bridge.
func (h *Host) claimFixed(ctx context.Context, ip netip.Addr, overlay string, owner ipam.Owner, fixed []netip.Addr, labels []string) error {
	unlock, err := h.Dir.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	client, err := h.client(ip)
	if err != nil {
		return err
	}
	defer client.Close()
	var held *agentstate.Held
	for _, a := range fixed {
		if held, err = h.ClaimFixed(ctx, client, ip, overlay, a, owner, labels); err != nil {
			return err
		}
	}
	if !h.Dir.CompanionRuns() {
		h.Log.Warn("no companion runs here, so this agent counts as silent: others can take its fixed addresses over when static_takeover has passed", "overlay", overlay, "addresses", fixed)
	}
	h.alone(ctx, held, overlay)
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	return k.AddFixed(ctx, network.MesosBridgeName(overlay), fixed...)
}

// ClaimFixed claims one fixed address for a container of this agent, and keeps
// the lease that lists it. It needs the host's lock. That the address can't be
// had is an *ipam.RequestError.
func (h *Host) ClaimFixed(ctx context.Context, client Coordinator, ip netip.Addr, overlay string, a netip.Addr, owner ipam.Owner, labels []string) (*agentstate.Held, error) {
	id, err := h.Dir.ID()
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	resp, err := client.ClaimAddress(within, ip, overlay, a, api.AddressRequest{
		ID: id, Container: owner.ContainerID, Interface: owner.IfName, Labels: labels,
	})
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeConflict {
		return nil, &ipam.RequestError{Overlay: overlay, Addr: a, Reason: refused.Message}
	}
	if err != nil {
		return nil, fmt.Errorf("claim the fixed address %s for agent %s: %w", a, ip, err)
	}
	held := granted(resp)
	if err := h.keep(held); err != nil {
		return nil, err
	}
	return held, nil
}

// ReleaseFixed frees all addresses of a container that has fixed ones, on this
// host and then at the coordinator. If that does not answer, the companion
// tells it later: that the lease lists an address which nobody here has
// reserved is the note of it.
func (h *Host) ReleaseFixed(ctx context.Context, overlay string, owner ipam.Owner) error {
	addrs, err := h.heldBy(ctx, overlay, owner)
	if err != nil {
		return err
	}
	if err := unrouteFixed(ctx, overlay, addrs); err != nil {
		return err
	}
	var errs []error
	for _, p := range h.Pools(overlay) {
		errs = append(errs, p.Release(ctx, owner))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := h.returnFixed(ctx, overlay, owner, addrs); err != nil {
		h.Log.Warn("the coordinator is not told yet that a fixed address is free: the companion tells it", "overlay", overlay, "error", err)
	}
	return nil
}

func (h *Host) heldBy(ctx context.Context, overlay string, owner ipam.Owner) (out []netip.Addr, err error) {
	for _, p := range h.Pools(overlay) {
		addrs, heldErr := p.Held(ctx, owner)
		out, err = append(out, addrs...), errors.Join(err, heldErr)
	}
	return out, err
}

func unrouteFixed(ctx context.Context, overlay string, addrs []netip.Addr) error {
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	return k.RemoveFixed(ctx, network.MesosBridgeName(overlay), addrs...)
}

// returnFixed tells the coordinator which addresses are free.
func (h *Host) returnFixed(ctx context.Context, overlay string, owner ipam.Owner, addrs []netip.Addr) error {
	held, err := h.Dir.Held()
	if err != nil || held == nil {
		return err
	}
	o := held.Agent.Overlay(overlay)
	if o == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	client, err := h.client(held.Agent.IP)
	if err != nil {
		return err
	}
	defer client.Close()
	var errs []error
	for _, a := range addrs {
		if o.Fixed(a, owner.ContainerID, owner.IfName) {
			errs = append(errs, client.ReleaseAddress(ctx, held.Agent.IP, overlay, a, owner.ContainerID, owner.IfName))
		}
	}
	return errors.Join(errs...)
}

// FixedHere are the fixed addresses of the overlay that containers on this host
// have reserved, whoever holds them at the coordinator.
func (h *Host) FixedHere(ctx context.Context, o network.Overlay) (out []ipam.Entry, err error) {
	for _, p := range h.Pools(o.Name) {
		entries, err := p.Entries(ctx)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Addr.IsValid() && o.IsStatic(e.Addr) {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// fixed routes the fixed addresses that are both claimed and reserved here to
// their overlays' bridges, and no others.
func (h *Host) fixed(ctx context.Context, k *kernel.Kernel, held *agentstate.Held, done *Outcome) {
	if !held.Agent.Config.MesosBridge {
		return
	}
	for _, o := range held.Agent.Overlays {
		info, ok := held.Network.Overlay(o.Name)
		if !ok || len(info.Statics()) == 0 || done.Failed[o.Name] != nil {
			continue
		}
		here, err := h.FixedHere(ctx, info)
		want, _ := compareFixed(o, here)
		slices.SortFunc(want, netip.Addr.Compare)
		if err == nil {
			err = done.Note(KindSysctl)(k.EnsureNoRedirects(ctx, info.MesosBridge()))
		}
		if err == nil {
			err = done.Note(KindPeers)(k.SyncFixed(ctx, info.MesosBridge(), want))
		}
		if errors.Is(err, kernel.ErrNoDevice) {
			err = nil // that there is no bridge is said already, where one is wanted
		}
		if err != nil {
			done.fail(o.Name, fmt.Errorf("fixed addresses: %w", err))
		}
	}
}
