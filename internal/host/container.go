package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

const (
	// claimTimeout bounds how long a container's start waits for a claim.
	claimTimeout = 10 * time.Second
	// renewTimeout bounds how long it waits for the coordinator's word on a
	// lease that it has: without an answer the lease on disk holds.
	renewTimeout = 3 * time.Second
	// reportTimeout bounds the report that a host without companion makes.
	reportTimeout = 2 * time.Second
)

// Prepare makes the host ready for containers of the overlay: a lease, and
// the kernel programmed by it. It is the cold path of ADD: with a lease on disk
// it goes on without coordinator. Failures to reach one, where there is no
// lease, are api.ErrUnreachable. It does nothing when ready says so. Where no
// companion runs it leaves a report of the state under way: see Wait.
func (h *Host) Prepare(ctx context.Context, overlay string, ready func(*agentstate.Held) bool) (*agentstate.Held, error) {
	return h.obtain(ctx, overlay, ready, func(ctx context.Context, c claimed) error {
		known, peersKept := h.knowledge(ctx, c)
		done, err := h.Program(ctx, c.held, known)
		for _, r := range done.Repairs {
			h.Log.Info("set up for the first container", "what", r.What)
		}
		err = errors.Join(err, done.Failed[overlay])
		for _, w := range done.Warnings {
			h.Log.Warn("look at this host", "what", w)
		}
		if err != nil {
			err = fmt.Errorf("set up this host: %w", err)
		}
		peersKept()
		err = errors.Join(c.kept(), err)
		if h.Dir.CompanionRuns() {
			c.client.Close()
			return err
		}
		h.reports.Go(func() {
			defer c.client.Close()
			h.report(ctx, c.client, c.held.Agent.IP, overlay, err)
		})
		return err
	})
}

// Wait waits for the reports that Prepare began.
func (h *Host) Wait() { h.reports.Wait() }

// Lease claims a subnet of the overlay and leaves the kernel alone.
func (h *Host) Lease(ctx context.Context, overlay string) (*agentstate.Held, error) {
	leased := func(held *agentstate.Held) bool {
		_, ok := h.Pool(held, overlay)
		return ok && !held.Drains(overlay)
	}
	return h.obtain(ctx, overlay, leased, func(_ context.Context, c claimed) error {
		c.client.Close()
		return c.kept()
	})
}

// claimed is a lease to go by.
type claimed struct {
	held *agentstate.Held
	// fresh says that it is the coordinator's word, not only what is on disk.
	fresh bool
	// kept waits until it is on disk.
	kept func() error
	// client is to be closed.
	client Coordinator
}

// obtain gets the lease by which then goes on, both with the host's lock held.
func (h *Host) obtain(ctx context.Context, overlay string, enough func(*agentstate.Held) bool,
	then func(ctx context.Context, c claimed) error,
) (*agentstate.Held, error) {
	unlock, err := h.Dir.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another container's ADD may have done it all while we waited.
	old, err := h.Dir.Held()
	if err == nil && enough(old) {
		return old, nil
	}
	if err != nil {
		h.Log.Warn("the lease on disk is of no use and claimed anew", "error", err)
		old = nil
	}
	ip, err := h.address(old)
	if err != nil {
		return nil, err
	}
	client, err := h.client(ip)
	if err != nil {
		return nil, err
	}
	c, err := h.claimFor(ctx, client, ip, old, overlay)
	if err != nil {
		client.Close()
		return nil, err
	}
	if err := h.usable(c.held, overlay); err != nil {
		client.Close()
		return nil, errors.Join(err, c.kept())
	}
	return c.held, then(ctx, c)
}

// usable fails where held has nothing for containers of the overlay.
func (h *Host) usable(held *agentstate.Held, overlay string) error {
	if _, ok := h.Pool(held, overlay); !ok {
		return fmt.Errorf("the coordinator granted no subnet of it: does network_config in %s turn it off?", h.Conf.Path)
	}
	if held.Drains(overlay) {
		return drains(overlay)
	}
	return nil
}

// drains is why an overlay that this agent holds takes no container. It is the
// coordinator's refusal, whether that was asked just now or told it before.
func drains(overlay string) error {
	return &api.Error{Code: api.CodeDisabled, Message: fmt.Sprintf(
		"overlay %s is being deleted, and takes no more containers: use another one, or have it brought back with PUT %s/%s",
		overlay, api.PathOverlays, overlay)}
}

// address is the agent's own: as configured, or what it was when nothing says
// what it is now.
func (h *Host) address(old *agentstate.Held) (netip.Addr, error) {
	ip, err := h.Conf.AgentIP()
	if err != nil && old != nil {
		h.Log.Warn("this agent's address can't be told, so that of its lease holds", "ip", old.Agent.IP, "error", err)
		return old.Agent.IP, nil
	}
	return ip, err
}

// claimFor answers the lease to go by: the coordinator's word if it can be
// had, else what is on disk. Only the first says if a subnet is still ours.
func (h *Host) claimFor(ctx context.Context, client Coordinator, ip netip.Addr, old *agentstate.Held, overlay string) (claimed, error) {
	_, leased := h.Pool(old, overlay)
	timeout := claimTimeout
	if leased {
		timeout = renewTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	held, err := h.ask(ctx, client, ip, api.ClaimRequest{Overlays: []string{overlay}})
	if err == nil {
		kept, err := h.keeping(held, old, overlay)
		return claimed{held, true, kept, client}, err
	}
	if leased && errors.Is(err, api.ErrUnreachable) {
		h.Log.Warn("no word from the coordinator, so the lease on disk holds", "error", err)
		return claimed{old, false, func() error { return nil }, client}, nil
	}
	if errors.Is(err, api.ErrUnreachable) {
		from := "\"master\" in " + h.Conf.Path
		if h.Conf.Path == "" {
			from = "the default, for there is no agent's file"
		}
		return claimed{}, fmt.Errorf("claim a subnet for agent %s: %w: start a coordinator, or correct its address (%s is from %s)",
			ip, err, strings.Join(h.Conf.Master, ", "), from)
	}
	return claimed{}, fmt.Errorf("claim a subnet for agent %s: %w", ip, err)
}

// keeping writes the lease to disk, and answers a function that waits for that.
// A state directory that is full is no reason to refuse containers of a lease
// that is in it.
func (h *Host) keeping(held, old *agentstate.Held, overlay string) (kept func() error, err error) {
	keep := func() error {
		err := h.keep(held)
		if _, leased := h.Pool(old, overlay); err != nil && leased && sameGrant(&old.Agent, &held.Agent, overlay) {
			h.Log.Warn("the coordinator's answer can't be kept; the lease on disk grants the same, and holds", "error", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("claim a subnet for agent %s: %w", held.Agent.IP, err)
		}
		return nil
	}
	if old != nil {
		// Nothing may be made by the new one while the old one is on disk: were
		// this process killed then, the next would take the host for set up.
		return func() error { return nil }, keep()
	}
	return begin(keep), nil
}

// begin begins f, and answers a function that waits for its end.
func begin(f func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() error { return <-done }
}

// sameGrant tells whether two records make the same of a host, as far as it
// concerns the overlay's containers.
func sameGrant(a, b *lease.Agent, overlay string) bool {
	x, y := a.Overlay(overlay), b.Overlay(overlay)
	return x != nil && y != nil && a.IP == b.IP && a.VTEP == b.VTEP && x.Split == y.Split &&
		slices.Equal(x.Subnets, y.Subnets) && slices.Equal(x.Subnets6, y.Subnets6)
}

// knowledge asks for all agents, and falls back on those known before. What it
// answers beside them waits until they are kept.
func (h *Host) knowledge(ctx context.Context, c claimed) (known Knowledge, kept func()) {
	if c.fresh {
		ctx, cancel := context.WithTimeout(ctx, claimTimeout)
		defer cancel()
		all, err := c.client.Agents(ctx)
		if err == nil {
			saved := begin(func() error { return h.Dir.SavePeers(all.Agents) })
			return Knowledge{Agents: all.Agents, Complete: true}, func() {
				if err := saved(); err != nil {
					h.Log.Warn("the peers are not kept for a start without coordinator", "error", err)
				}
			}
		}
		h.Log.Warn("the other agents are not known now", "error", err)
	}
	peers, err := h.Dir.Peers()
	if err != nil {
		h.Log.Warn("the peers known before can't be read", "error", err)
	}
	return Knowledge{Agents: peers}, func() {}
}

// report tells the coordinator how it went, where no companion does.
func (h *Host) report(ctx context.Context, client Coordinator, ip netip.Addr, overlay string, failure error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	state := lease.State{Status: lease.StatusOK}
	if failure != nil {
		state = lease.State{Status: lease.StatusFailed, Error: failure.Error()}
	}
	err := client.Report(ctx, ip, api.StatusRequest{Overlays: []api.OverlayStatus{{Name: overlay, State: state}}})
	if err != nil {
		h.Log.Warn("the state of this host is not reported", "error", err)
	}
}
