// Package teardown takes a host out of the overlays: it removes all that the
// companion and the plugins have made there, and gives the lease back if it is
// told to.
package teardown

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/dcos/dcos-overlay/companion/conffile"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Docker is what is needed of the Docker Engine; *docker.Engine has it.
type Docker interface {
	List(ctx context.Context) (overlays []string, err error)
	Remove(ctx context.Context, overlay string) error
}

// Teardown is about one host, on which no companion may run.
type Teardown struct {
	Host   *host.Host
	Docker Docker
	Log    *slog.Logger
}

// Run removes what is ours: Docker networks and bridges that no container is
// on, the VTEP with all routes, the firewall's rules, the CNI configurations.
// The lease stays, unless release is set. One thing that can't be removed
// keeps no other from it, but keeps the lease; the error names each.
func (t *Teardown) Run(ctx context.Context, release bool) error {
	unlock, err := t.Host.Dir.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// A lease that can't be read is of no use; what it held may still be told
	// by the marks.
	held, leaseErr := t.Host.Dir.Held()
	err = errors.Join(
		leaseErr,
		t.dockerNetworks(ctx),
		t.devices(held),
		t.done("firewall rules", firewall.New().Remove(ctx)),
		t.confs(),
	)
	switch {
	case !release:
		return err
	case err != nil:
		return errors.Join(err, errors.New("the lease is kept, for what is left may use its addresses: remove that, and try again"))
	}
	return t.release(ctx, held)
}

// done logs the removal of what, or hands its failure on.
func (t *Teardown) done(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	t.Log.Info("removed", "what", what)
	return nil
}

func (t *Teardown) dockerNetworks(ctx context.Context) error {
	if !t.Host.Conf.Network.DockerBridge {
		return nil
	}
	overlays, err := t.Docker.List(ctx)
	if err != nil {
		return fmt.Errorf("Docker networks: %w (set docker_bridge to false where there is no Docker)", err)
	}
	var errs []error
	for _, o := range overlays {
		errs = append(errs, t.done("Docker network "+o, t.Docker.Remove(ctx, o)))
	}
	return errors.Join(errs...)
}

// devices removes the bridges of all overlays that the lease or a mark names,
// then the VTEP; routes, neighbours and forwarding entries go with it.
func (t *Teardown) devices(held *agentstate.Held) error {
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	overlays, err := t.Host.Dir.Marked()
	errs := []error{err}
	if held != nil {
		for _, o := range held.Agent.Overlays {
			overlays = append(overlays, o.Name)
		}
	}
	slices.Sort(overlays)
	for _, o := range slices.Compact(overlays) {
		bridge := network.MesosBridgeName(o)
		errs = append(errs,
			t.done("bridge "+bridge, k.RemoveBridge(bridge)),
			t.Host.Dir.UnmarkReady(o))
	}
	errs = append(errs, t.done("device "+network.VTEPName, k.RemoveLink(network.VTEPName)))
	return errors.Join(errs...)
}

func (t *Teardown) confs() error {
	removed, err := conffile.Dir{Path: t.Host.Conf.CNIDir, AgentConfig: t.Host.Conf.Path}.Prune(nil)
	for _, r := range removed {
		t.Log.Info("removed", "what", r)
	}
	return err
}

// release gives the lease back, to the coordinator first: what it has not
// heard of it would keep for this agent.
func (t *Teardown) release(ctx context.Context, held *agentstate.Held) error {
	if held == nil {
		return nil
	}
	client, err := apiclient.ForAgent(t.Host.Conf, held.Agent.IP)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Release(ctx, held.Agent.IP); err != nil {
		return fmt.Errorf("release the lease of agent %s: %w", held.Agent.IP, err)
	}
	return t.done("lease", errors.Join(t.Host.Dir.Forget(), t.Host.Dir.SavePeers(nil)))
}
