package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/ipam"
)

// if6Path is there when the kernel does IPv6 (proc(5)).
const if6Path = "/proc/net/if_inet6"

// Available fails with the reason why there is no address of the overlay to be
// had for a container on this host. It changes nothing.
func (h *Host) Available(ctx context.Context, overlay string) error {
	held, err := h.Dir.Held()
	if pool, ok := h.Pool(held, overlay); err == nil && ok && !held.Drains(overlay) {
		return free(ctx, pool)
	}
	// A lease that can't be read is claimed anew.
	if err != nil {
		held = nil
	}
	return h.claimable(ctx, held, overlay)
}

func free(ctx context.Context, pool ipam.Pool) error {
	used, free, err := pool.Usage(ctx)
	if err != nil {
		return err
	}
	if free == 0 {
		return &ipam.ExhaustedError{Overlay: pool.Overlay, Side: append(append(pool.V4[:0:0], pool.V4...), pool.V6...), Used: int(used)}
	}
	if _, err := os.Stat(if6Path); len(pool.V6) > 0 && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the overlay has IPv6 addresses (%v), and this host's kernel has IPv6 off: boot it without ipv6.disable=1, or set network_config.enable_ipv6 to false", pool.V6[0])
	}
	return nil
}

// claimable asks the coordinator whether a claim can succeed.
func (h *Host) claimable(ctx context.Context, held *agentstate.Held, overlay string) error {
	if !h.Conf.Network.AllocateSubnet {
		return fmt.Errorf("this agent takes no subnets: network_config.allocate_subnet is false in %s", h.Conf.Path)
	}
	ip, err := h.address(held)
	if err != nil {
		return err
	}
	client, err := h.Client(ip)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	o, err := client.Overlay(ctx, overlay)
	if held.Drains(overlay) && (err != nil || !o.IsEnabled()) {
		return drains(overlay)
	}
	if err != nil {
		return fmt.Errorf("this agent has no lease of it, and a claim would fail: %w", err)
	}
	if !o.IsEnabled() {
		return errors.New("this agent has no lease of it, and a claim would fail: the overlay is disabled")
	}
	return nil
}
