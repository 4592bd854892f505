// Package host makes one agent part of the overlays: it claims the lease and
// programs the kernel by it. The CNI plugins call it for the first container,
// the companion whenever something changed. Callers hold the host's lock.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// Host is one agent.
type Host struct {
	Conf agentconf.Config
	Dir  agentstate.Dir
	Log  *slog.Logger
}

// New is the agent that conf describes.
func New(conf agentconf.Config, log *slog.Logger) *Host {
	return &Host{Conf: conf, Dir: agentstate.Dir{State: conf.StateDir, Run: conf.RunDir}, Log: log}
}

// Client calls the coordinator from ip.
func (h *Host) Client(ip netip.Addr) (*apiclient.Client, error) {
	return apiclient.New(apiclient.Options{
		Masters:  h.Conf.Master,
		LocalIP:  ip,
		CAFile:   h.Conf.CAFile,
		CertFile: h.Conf.CertFile,
		KeyFile:  h.Conf.KeyFile,
	})
}

// Pool are the addresses that held grants to Mesos containers of the overlay;
// false when it grants none.
func (h *Host) Pool(held *agentstate.Held, overlay string) (ipam.Pool, bool) {
	if held == nil {
		return ipam.Pool{}, false
	}
	o := held.Agent.Overlay(overlay)
	if o == nil {
		return ipam.Pool{}, false
	}
	p := ipam.Pool{Dir: h.Conf.DataDir(), Overlay: overlay}
	p.V4, p.V6 = o.MesosSide()
	return p, len(p.V4)+len(p.V6) > 0
}

// Claim asks the coordinator for subnets of the overlays, or of all that are
// enabled, and keeps the answer as this agent's lease. It needs the lock.
func (h *Host) Claim(ctx context.Context, client *apiclient.Client, ip netip.Addr, overlays []string, all bool) (*agentstate.Held, error) {
	id, err := h.Dir.ID()
	if err != nil {
		return nil, err
	}
	resp, err := client.Claim(ctx, ip, api.ClaimRequest{
		ID: id, Overlays: overlays, AllOverlays: all, NetworkConfig: &h.Conf.Network,
	})
	if err != nil {
		return nil, err
	}
	held := &agentstate.Held{Agent: resp.Agent, Network: resp.Network, Revision: resp.Revision}
	if err := h.Dir.Save(held); err != nil {
		return nil, fmt.Errorf("keep the lease: %w", err)
	}
	return held, nil
}

// Knowledge is what the caller knows of the other agents.
type Knowledge struct {
	Agents []lease.Agent
	// Complete says that Agents are all there are, so that entries to
	// others may be removed.
	Complete bool
}

// Outcome is what Program did.
type Outcome struct {
	// Repairs say in words what it had to change.
	Repairs []string
	// MTU is that of containers on this host, in bytes; 0 when Program
	// failed before it knew.
	MTU int
}

func (o *Outcome) note(repairs []string, err error) error {
	o.Repairs = append(o.Repairs, repairs...)
	return err
}

// Program brings this host's kernel to what held and the known peers ask for.
// It needs the lock.
func (h *Host) Program(ctx context.Context, held *agentstate.Held, known Knowledge) (done Outcome, err error) {
	k, err := kernel.Open()
	if err != nil {
		return done, err
	}
	defer k.Close()
	self := &held.Agent
	underlay, err := k.Underlay(self.IP)
	if err != nil {
		return done, err
	}
	done.MTU = dataplane.ContainerMTU(h.Conf.Network.OverlayMTU, underlay.MTU, self.IP.Is6())
	vtepMTU := done.MTU
	if held.Network.VTEPMTU != 0 {
		vtepMTU = held.Network.VTEPMTU
	}
	vtep := dataplane.VTEPOf(self, vtepMTU)
	if err := done.note(k.EnsureVTEP(ctx, vtep)); err != nil {
		return done, err
	}
	if err := done.note(k.EnsureForwarding(ctx, true, self.VTEP.IP6.IsValid())); err != nil {
		return done, err
	}
	if self.Config.MesosBridge {
		for _, o := range self.Overlays {
			if err := done.note(k.EnsureBridge(ctx, dataplane.MesosBridgeOf(o, done.MTU))); err != nil {
				return done, err
			}
		}
	}
	sync := k.AddPeers
	if known.Complete {
		sync = k.SyncPeers
	}
	stats, peersErr := sync(ctx, vtep.Name, dataplane.PeersOf(self.IP, known.Agents))
	if stats.Changed() {
		done.Repairs = append(done.Repairs, peersText(stats))
	}
	// Without rules no container gets outside, whatever is wrong with a peer.
	rulesErr := done.note(firewall.New().Apply(ctx, firewall.ConfigOf(held.Network)))
	if err := errors.Join(peersErr, rulesErr); err != nil {
		return done, err
	}
	for _, o := range self.Overlays {
		if err := h.Dir.MarkReady(o.Name); err != nil {
			return done, err
		}
	}
	return done, nil
}

// fewChanges is how many changed entries a log line names one by one.
const fewChanges = 4

func peersText(s kernel.Stats) string {
	if lines := s.Changes.Lines(); len(lines) <= fewChanges && s.Foreign == 0 {
		return "peers: " + strings.Join(lines, "; ")
	}
	return fmt.Sprintf("peers: %d entries set, %d removed", s.Changes.Sets(), s.Changes.Deletes()+s.Foreign)
}
