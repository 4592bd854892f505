package agent

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// eachOverlay makes the Docker networks and says how each overlay is. failure
// is what concerns all of them; the error is what concerns single ones.
func (a *Agent) eachOverlay(ctx context.Context, held *agentstate.Held, failure error, done *host.Outcome) ([]api.OverlayStatus, error) {
	out := []api.OverlayStatus{}
	var errs []error
	wantsDocker, dockerUp := held.Agent.Config.DockerBridge, true
	for _, o := range held.Agent.Overlays {
		s := api.OverlayStatus{Name: o.Name, State: lease.State{Status: lease.StatusOK}}
		own := done.Failed[o.Name]
		if wantsDocker {
			dockerErr := a.docker(ctx, o, held.Drains(o.Name), &s, done)
			if errors.Is(dockerErr, docker.ErrUnavailable) {
				dockerUp = false
			}
			own = errors.Join(own, dockerErr)
		}
		if pool, ok := a.Host.Pool(held, o.Name); ok && held.Agent.Config.MesosBridge {
			used, free, err := pool.Usage(ctx)
			own = errors.Join(own, err)
			s.Addresses.Mesos = &api.Usage{Used: used, Free: free}
		}
		if own != nil {
			errs = append(errs, fmt.Errorf("overlay %s: %w", o.Name, own))
		}
		if err := errors.Join(failure, own); err != nil {
			s.State = lease.State{Status: lease.StatusFailed, Error: oneLine(err)}
		}
		out = append(out, s)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.WantsDocker, a.status.DockerUp = wantsDocker, wantsDocker && dockerUp
	return out, errors.Join(errs...)
}

func (a *Agent) docker(ctx context.Context, o lease.Overlay, drains bool, s *api.OverlayStatus, done *host.Outcome) error {
	n, ok := docker.Of(o, done.MTU)
	// Without an MTU the host itself is wrong, and that is said already.
	if !ok || done.MTU == 0 {
		return nil
	}
	// That of an overlay that is being deleted goes with its last container.
	if !drains {
		if err := done.Note(host.KindDocker)(a.Docker.Ensure(ctx, n)); err != nil {
			return err
		}
		if err := a.dockerBridge(ctx, n, done); err != nil {
			return err
		}
	}
	used, free, err := a.Docker.Usage(ctx, n)
	if err != nil {
		return err
	}
	s.Addresses.Docker = &api.Usage{Used: used, Free: free}
	return nil
}

// dockerBridge sees to a network whose device somebody has deleted, which
// Docker does not notice: only a new network gets a new device.
func (a *Agent) dockerBridge(ctx context.Context, n docker.Network, done *host.Outcome) error {
	if _, err := net.InterfaceByName(n.Bridge); err == nil {
		return nil
	}
	if err := a.Docker.Remove(ctx, n.Name); err != nil {
		return fmt.Errorf("bridge %s was deleted: %w", n.Bridge, err)
	}
	made, err := a.Docker.Ensure(ctx, n)
	if err != nil {
		return fmt.Errorf("bridge %s was deleted: %w", n.Bridge, err)
	}
	if len(made) == 0 {
		return fmt.Errorf("bridge %s was deleted, and its Docker network %s is not ours: make that anew", n.Bridge, n.Name)
	}
	done.Repairs = append(done.Repairs, host.Repair{
		Kind: host.KindDocker,
		What: fmt.Sprintf("bridge %s of Docker network %s was deleted", n.Bridge, n.Name),
	})
	return nil
}
