// Package host makes one agent part of the overlays: it claims the lease and
// programs the kernel by it. The CNI plugins call it for the first container,
// the companion whenever something changed. Callers hold the host's lock.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/firewall"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Host is one agent.
type Host struct {
	Conf agentconf.Config
	Dir  agentstate.Dir
	Log  *slog.Logger
	// Dial is how Prepare, Lease, Reserve and Available get to ask
	// coordinators; those who call none of them need not set it.
	Dial Dialer

	// reports are those that Prepare began.
	reports sync.WaitGroup
}

// New is the agent that conf describes.
func New(conf agentconf.Config, log *slog.Logger) *Host {
	return &Host{Conf: conf, Dir: agentstate.Dir{State: conf.StateDir, Run: conf.RunDir}, Log: log}
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
	p.Unleased = func() (free, all int64, ok bool) { return h.unleased(held, overlay) }
	return p, len(p.V4)+len(p.V6) > 0
}

// Claim asks the coordinator for subnets of the overlays, or of all that are
// enabled, and keeps the answer as this agent's lease. It needs the lock.
func (h *Host) Claim(ctx context.Context, client Coordinator, ip netip.Addr, overlays []string, all bool) (*agentstate.Held, error) {
	return h.claim(ctx, client, ip, api.ClaimRequest{Overlays: overlays, AllOverlays: all})
}

// claim is Claim for what req asks for, in this agent's name.
func (h *Host) claim(ctx context.Context, client Coordinator, ip netip.Addr, req api.ClaimRequest) (*agentstate.Held, error) {
	held, err := h.ask(ctx, client, ip, req)
	if err != nil {
		return nil, err
	}
	if err := h.keep(held); err != nil {
		return nil, err
	}
	return held, nil
}

// ask is claim, and keeps nothing.
func (h *Host) ask(ctx context.Context, client Coordinator, ip netip.Addr, req api.ClaimRequest) (*agentstate.Held, error) {
	var err error
	if req.ID, err = h.Dir.ID(); err != nil {
		return nil, err
	}
	req.NetworkConfig = &h.Conf.Network
	resp, err := client.Claim(ctx, ip, req)
	if err != nil {
		return nil, err
	}
	return granted(resp), nil
}

func granted(resp api.ClaimResponse) *agentstate.Held {
	return &agentstate.Held{Agent: resp.Agent, Network: resp.Network, Deleting: resp.Deleting, Revision: resp.Revision}
}

// keep makes the coordinator's answer this agent's lease. It needs the lock.
func (h *Host) keep(held *agentstate.Held) error {
	if err := h.Dir.Save(held); err != nil {
		return fmt.Errorf("keep the lease: %w", err)
	}
	return nil
}

// Knowledge is what the caller knows of the other agents.
type Knowledge struct {
	Agents []lease.Agent
	// Complete says that Agents are all there are, so that entries to
	// others may be removed.
	Complete bool
}

// Kind says what a repair was about.
type Kind string

// The kinds of repairs.
const (
	KindDevice Kind = "device"
	KindSysctl Kind = "sysctl"
	KindPeers  Kind = "peers"
	KindRules  Kind = "rules"
	KindDocker Kind = "docker"
	KindConf   Kind = "conf"
)

// Kinds are all kinds of repairs.
func Kinds() []Kind {
	return []Kind{KindDevice, KindSysctl, KindPeers, KindRules, KindDocker, KindConf}
}

// Repair is one thing that was wrong and is right now, in words.
type Repair struct {
	Kind Kind
	What string
}

// Outcome is what Program did.
type Outcome struct {
	Repairs []Repair
	// Underlay is the device that the agent's address is on; the zero value
	// when there is none.
	Underlay kernel.Underlay
	// MTU is that of containers on this host, in bytes; 0 without Underlay.
	MTU int
	// Rules are those that were asked for.
	Rules firewall.Config
	// Filtered is how many addresses the set of Rules' filter holds; 0 where
	// there is none, or not all agents are known.
	Filtered int
	// Failed are the errors that concern one overlay alone, by its name.
	Failed map[string]error
	// Warnings say in words what may be trouble on this host, and is no error.
	// They come again as long as they hold.
	Warnings []string
}

// Note takes what a call has repaired, and hands its error on.
func (o *Outcome) Note(kind Kind) func(repairs []string, err error) error {
	return func(repairs []string, err error) error {
		for _, r := range repairs {
			o.Repairs = append(o.Repairs, Repair{kind, r})
		}
		return err
	}
}

func (o *Outcome) fail(overlay string, err error) {
	if o.Failed == nil {
		o.Failed = map[string]error{}
	}
	o.Failed[overlay] = err
}

// Program brings this host's kernel to what held and the known peers ask for.
// It needs the lock. What fails keeps nothing else from being done: the error
// is what concerns all overlays, Outcome.Failed what concerns one.
func (h *Host) Program(ctx context.Context, held *agentstate.Held, known Knowledge) (done Outcome, err error) {
	k, err := kernel.Open()
	if err != nil {
		return done, err
	}
	defer k.Close()
	held, known, lacking := h.feasible(k, held, known)
	self := &held.Agent
	rules, unruled := h.rulesOf(held)
	done.Rules = rules
	for _, lacking := range []map[string]error{unruled, lacking} {
		for overlay, err := range lacking {
			done.fail(overlay, err)
		}
	}
	// Before the way to a new peer, which may be sending already.
	done.Rules.Filter = h.filter(ctx, self.IP, known, &done)
	ruled := h.rules(ctx, k, &done)
	devicesErr := h.devices(ctx, k, held, &done)
	forwardErr := done.Note(KindSysctl)(k.EnsureForwarding(ctx, true, self.VTEP.IP6.IsValid()))
	sync := k.AddPeers
	if known.Complete {
		sync = k.SyncPeers
	}
	stats, peersErr := sync(ctx, network.VTEPName, dataplane.PeersOf(self.IP, known.Agents))
	if devicesErr != nil && (errors.Is(peersErr, kernel.ErrNoDevice) || errors.Is(peersErr, unix.ENETDOWN)) {
		// That there is no VTEP, or that it is down, is said already, and what
		// it took of the peers it loses again.
		stats, peersErr = kernel.Stats{}, nil
	}
	if stats.Changed() {
		done.Repairs = append(done.Repairs, Repair{KindPeers, peersText(stats)})
	}
	h.ports(ctx, k, held, &done)
	h.fixed(ctx, k, held, &done)
	rulesErr := ruled()
	if err := errors.Join(devicesErr, forwardErr, peersErr, rulesErr); err != nil {
		return done, err
	}
	for _, o := range self.Overlays {
		if done.Failed[o.Name] != nil {
			continue
		}
		if err := h.Dir.MarkReady(o.Name); err != nil {
			return done, err
		}
	}
	return done, nil
}

// devices makes the VTEP and the bridges. Where the agent's address is on no
// device, those that are there stay as they are.
func (h *Host) devices(ctx context.Context, k *kernel.Kernel, held *agentstate.Held, done *Outcome) error {
	self := &held.Agent
	underlay, err := k.Underlay(self.IP)
	if err != nil {
		return err
	}
	done.Underlay = underlay
	var vtepMTU int
	done.MTU, vtepMTU = h.mtus(held, underlay)
	done.Warnings = append(done.Warnings, h.tooLong(held, underlay)...)
	vtep := dataplane.VTEPOf(self, vtepMTU)
	vtep.TxOffload = h.Conf.VTEPTxOffload
	vtepErr := done.Note(KindDevice)(k.EnsureVTEP(ctx, vtep))
	if !self.Config.MesosBridge {
		return vtepErr
	}
	for _, o := range self.Overlays {
		bridge := dataplane.MesosBridgeOf(o, done.MTU)
		_, lookErr := net.InterfaceByName(bridge.Name)
		if err := done.Note(KindDevice)(k.EnsureBridge(ctx, bridge)); err != nil {
			done.fail(o.Name, err)
		} else if lookErr != nil && h.Dir.Ready(o.Name) {
			done.Repairs = append(done.Repairs, Repair{KindDevice, bridge.Name + ": somebody had deleted it"})
		}
	}
	return vtepErr
}

// fewChanges is how many changed entries a log line names one by one.
const fewChanges = 4

func peersText(s kernel.Stats) string {
	if s.Changes.Sets()+s.Changes.Deletes() <= fewChanges && s.Foreign == 0 {
		return "peers: " + strings.Join(s.Changes.Lines(), "; ")
	}
	return fmt.Sprintf("peers: %d entries set, %d removed", s.Changes.Sets(), s.Changes.Deletes()+s.Foreign)
}
