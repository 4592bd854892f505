package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/dcos/dcos-overlay/companion/conffile"
	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
)

// knowsAll tells whether held is the coordinator's present word, so that what
// it lacks is really gone.
func (a *Agent) knowsAll(view *peers.View, held *agentstate.Held) bool {
	return a.claim.done && view.Synced && view.Connected && view.Revision >= held.Revision
}

// retireDevices removes the bridges of overlays that are held no longer, once
// no container is on them, or at once if the overlay was deleted from under
// them. The marks of what was set up tell which bridges are ours. It needs the
// host's lock.
func (a *Agent) retireDevices(view *peers.View, held *agentstate.Held, done *host.Outcome) error {
	marked, err := a.Host.Dir.Marked()
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range marked {
		if held.Agent.Overlay(o) != nil {
			if !held.Agent.Config.MesosBridge {
				errs = append(errs, a.dropBridge(o, done))
			}
			continue
		}
		bridge := network.MesosBridgeName(o)
		err := removeBridge(bridge, taken(view, o))
		if a.waits(bridge, err, kernel.ErrInUse) {
			continue
		}
		if err == nil {
			err = a.Host.Dir.UnmarkReady(o)
		}
		errs = append(errs, err)
		if err == nil {
			done.Repairs = append(done.Repairs, host.Repair{
				Kind: host.KindDevice,
				What: fmt.Sprintf("overlay %s is held no longer: %s and its mark are removed", o, bridge),
			})
		}
	}
	return errors.Join(errs...)
}

// dropBridge removes the bridge of an overlay that is held, on a host that takes
// no Mesos containers any more, once no container is on it.
func (a *Agent) dropBridge(overlay string, done *host.Outcome) error {
	bridge := network.MesosBridgeName(overlay)
	if _, err := net.InterfaceByName(bridge); err != nil {
		return nil
	}
	err := removeBridge(bridge, false)
	if a.waits(bridge, err, kernel.ErrInUse) {
		return nil
	}
	if err == nil {
		done.Repairs = append(done.Repairs, host.Repair{
			Kind: host.KindDevice, What: bridge + " is removed, for mesos_bridge is false",
		})
	}
	return err
}

// taken tells whether an overlay that is held no longer was deleted by an
// operator who would not wait for its containers. Without that word it may as
// well have been lost with etcd's data, and then its containers talk on.
func taken(view *peers.View, overlay string) bool { return slices.Contains(view.Deleted, overlay) }

// removeBridge removes a bridge without containers or, with force, any.
func removeBridge(name string, force bool) error {
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	err = k.RemoveBridge(name)
	if force && errors.Is(err, kernel.ErrInUse) {
		err = k.RemoveLink(name)
	}
	return err
}

// waits tells whether err is that containers still use a thing, and logs it
// once.
func (a *Agent) waits(thing string, err, inUse error) bool {
	if !errors.Is(err, inUse) {
		a.said.news(thing, "")
		return false
	}
	if a.said.news(thing, errorText(err)) {
		a.Log.Info("it is wanted no longer, and stays until it is unused", "what", thing, "because", err)
	}
	return true
}

// retireDocker removes the Docker networks of overlays that are held no
// longer, once no container is on them, or at once as retireDevices does.
func (a *Agent) retireDocker(ctx context.Context, view *peers.View, held *agentstate.Held, done *host.Outcome) error {
	switch {
	case !a.knowsAll(view, held):
		return nil
	case !held.Agent.Config.DockerBridge:
		return a.dropDocker(ctx, held, done)
	}
	ours, err := a.Docker.List(ctx)
	if errors.Is(err, docker.ErrUnavailable) {
		// It is said already where a network is wanted, and where none is, an
		// Engine may be away.
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range ours {
		if held.Agent.Overlay(o) != nil {
			continue
		}
		thing := "Docker network " + o
		remove := a.Docker.Remove
		if taken(view, o) {
			remove = a.Docker.Cut
		}
		err := remove(ctx, o)
		if a.waits(thing, err, docker.ErrInUse) {
			continue
		}
		errs = append(errs, err)
		if err == nil {
			done.Repairs = append(done.Repairs, host.Repair{
				Kind: host.KindDocker,
				What: fmt.Sprintf("overlay %s is held no longer: its Docker network is removed", o),
			})
		}
	}
	return errors.Join(errs...)
}

// dropDocker removes the Docker networks of overlays that are held, on a host
// that has no Docker networks any more, once no container is on them. Docker is
// asked only where there is the bridge of one.
func (a *Agent) dropDocker(ctx context.Context, held *agentstate.Held, done *host.Outcome) error {
	var errs []error
	for _, o := range held.Agent.Overlays {
		bridge := network.DockerBridgeName(o.Name)
		if _, err := net.InterfaceByName(bridge); err != nil {
			continue
		}
		err := a.Docker.Remove(ctx, o.Name)
		if a.waits("Docker network "+o.Name, err, docker.ErrInUse) || errors.Is(err, docker.ErrUnavailable) {
			continue
		}
		errs = append(errs, err)
		if _, lookErr := net.InterfaceByName(bridge); err == nil && lookErr != nil {
			done.Repairs = append(done.Repairs, host.Repair{
				Kind: host.KindDocker, What: fmt.Sprintf("Docker network %s is removed, for docker_bridge is false", o.Name),
			})
		}
	}
	return errors.Join(errs...)
}

// confs keeps a CNI configuration for every overlay that is enabled, if this
// host takes Mesos containers, and removes ours of others when all overlays
// are known.
func (a *Agent) confs(view *peers.View, held *agentstate.Held) (repairs []string, err error) {
	dir := conffile.Dir{Path: a.Host.Conf.CNIDir, AgentConfig: a.Host.Conf.Path}
	overlays := view.Network.Overlays
	if !view.Synced && held != nil {
		overlays = held.Network.Overlays
	}
	var enabled []string
	for _, o := range overlays {
		if o.IsEnabled() && a.Host.Conf.Network.MesosBridge {
			enabled = append(enabled, o.Name)
		}
	}
	repairs, err = dir.Keep(enabled)
	if !view.Synced || !view.Connected {
		return repairs, err
	}
	removed, pruneErr := dir.Prune(enabled)
	return append(repairs, removed...), errors.Join(err, pruneErr)
}
