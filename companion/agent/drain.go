package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// drainEvery is the longest time between two passes while an overlay is
	// drained: nothing else tells that the last Mesos container is gone.
	drainEvery = 2 * time.Second
	// drainSettle is how long an overlay must have been empty before it is
	// given back: an ADD that read the lease before it said that the overlay
	// is being deleted has its address by then.
	drainSettle = 2 * time.Second
)

// drain gives back what this agent holds of overlays that are being deleted,
// once no container is on them. That the lease says so keeps new ones away.
// Bridge and lease go when the coordinator has confirmed it, as they go
// whenever an overlay is held no longer.
func (a *Agent) drain(ctx context.Context, view *peers.View, held *agentstate.Held, done *host.Outcome) error {
	var waiting []string
	empty := map[string]time.Time{}
	var errs []error
	for _, o := range held.Agent.Overlays {
		if !held.Drains(o.Name) || !a.knowsAll(view, held) {
			continue
		}
		left, err := a.left(ctx, held, o, done)
		thing := "overlay " + o.Name
		if err != nil || len(left) > 0 {
			why := strings.Join(left, " and ")
			if err != nil {
				why = oneLine(err)
				errs = append(errs, fmt.Errorf("drain overlay %s: %w", o.Name, err))
			}
			waiting = append(waiting, fmt.Sprintf("overlay %s is being deleted, and is held until it is unused: %s", o.Name, why))
			if a.said.news(thing, why) && err == nil {
				a.Log.Info("an overlay is being deleted, and is held until it is unused", "overlay", o.Name, "because", why)
			}
			continue
		}
		since, ok := a.empty[o.Name]
		if !ok {
			since = time.Now()
		}
		empty[o.Name] = since
		if time.Since(since) < drainSettle {
			continue
		}
		if err := a.release(ctx, held, o.Name); err != nil {
			errs = append(errs, fmt.Errorf("give back what is held of overlay %s: %w", o.Name, err))
			continue
		}
		a.said.news(thing, "")
		a.Log.Info("an overlay that is being deleted is unused, and is given back", "overlay", o.Name, "subnets", o.AllSubnets())
	}
	a.empty = empty
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Draining = waiting
	return errors.Join(errs...)
}

// draining tells whether an overlay that this agent holds is being deleted.
func (a *Agent) draining() bool {
	held := a.known()
	return held != nil && slices.ContainsFunc(held.Agent.Overlays, func(o lease.Overlay) bool { return held.Drains(o.Name) })
}

// left is what of containers there still is on an overlay, in words. The
// Docker network goes as soon as no container is on it, so that Docker starts
// no more there.
func (a *Agent) left(ctx context.Context, held *agentstate.Held, o lease.Overlay, done *host.Outcome) (left []string, err error) {
	if pool, ok := a.Host.Pool(held, o.Name); ok {
		used, _, err := pool.Usage(ctx)
		if err != nil {
			return nil, err
		}
		if used > 0 {
			left = append(left, fmt.Sprintf("%d addresses are reserved for Mesos containers", used))
		}
	}
	if len(left) == 0 {
		n, err := ports(o.Name)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			left = append(left, fmt.Sprintf("%d interfaces are on %s", n, network.MesosBridgeName(o.Name)))
		}
	}
	if !held.Agent.Config.DockerBridge {
		return left, nil
	}
	bridge := network.DockerBridgeName(o.Name)
	_, lookErr := net.InterfaceByName(bridge)
	err = a.Docker.Remove(ctx, o.Name)
	switch {
	case errors.Is(err, docker.ErrInUse):
		return append(left, err.Error()), nil
	case errors.Is(err, docker.ErrUnavailable) && lookErr != nil:
		// Without its bridge there is no such network.
		return left, nil
	case err != nil:
		return left, err
	case lookErr != nil:
		return left, nil
	}
	if _, err := net.InterfaceByName(bridge); err == nil {
		return append(left, fmt.Sprintf("%s is of a Docker network that is not ours: remove it", bridge)), nil
	}
	done.Repairs = append(done.Repairs, host.Repair{
		Kind: host.KindDocker,
		What: fmt.Sprintf("overlay %s is being deleted: its Docker network is removed", o.Name),
	})
	return left, nil
}

// ports counts the interfaces on the overlay's Mesos bridge; none without one.
func ports(overlay string) (n int, err error) {
	bridge, err := net.InterfaceByName(network.MesosBridgeName(overlay))
	if err != nil {
		return 0, nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list the ports of %s: %w", bridge.Name, err)
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == bridge.Index {
			n++
		}
	}
	return n, nil
}

func (a *Agent) giveBack(ctx context.Context, held *agentstate.Held, overlay string) error {
	client, err := a.clients.to(a.Host, held.Agent.IP)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	return client.ReleaseOverlay(ctx, held.Agent.IP, overlay)
}
