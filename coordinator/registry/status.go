package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// maxStateError bounds the text that an agent gives as a state's error, in
// bytes: every other agent is sent it.
const maxStateError = 1024

// storedAlive is the value of an agent's alive key, which is there for
// Options.AliveTTL after each status.
type storedAlive struct {
	// Addresses are the last status' counts by overlay.
	Addresses map[string]api.Addresses `json:"addresses,omitempty"`
	// HostRoutes are the last status's, sorted.
	HostRoutes []netip.Prefix `json:"host_routes,omitempty"`
}

// Status records the agent's word on its overlays, and that it is alive. It
// writes only what changed: an agent that has nothing new costs a keepalive.
// Errors that the agent can do something about are *api.Error; not_found says
// that it must claim again.
func (r *Registry) Status(ctx context.Context, ip netip.Addr, req api.StatusRequest) error {
	if err := checkStatus(req); err != nil {
		return err
	}
	alive := storedAlive{Addresses: map[string]api.Addresses{}, HostRoutes: cleanRoutes(req.HostRoutes)}
	for _, o := range req.Overlays {
		alive.Addresses[o.Name] = o.Addresses
	}
	value, err := json.Marshal(alive)
	if err != nil {
		return fmt.Errorf("status of agent %s: %w", ip, err)
	}
	if err := r.waitSynced(ctx); err != nil {
		return fmt.Errorf("status of agent %s: %w", ip, err)
	}
	leaseID, fresh, err := r.keepAlive(ctx, ip)
	if err != nil {
		return fmt.Errorf("status of agent %s: %w: %w", ip, ErrUnavailable, err)
	}
	_, _, err = r.change(ctx, fmt.Sprintf("status of agent %s", ip), func(x *index) (*plan, error) {
		a, err := withStates(x.agents[ip], ip, req)
		if err != nil {
			return nil, err
		}
		p := &plan{read: keyAgent(ip)}
		p.unchanged(keyAgent(ip), x.agentRev(ip))
		if a != nil {
			p.put(keyAgent(ip), a)
		}
		known, ok := x.alive[ip]
		if fresh || !ok || known.value != string(value) || known.lease != int64(leaseID) {
			p.put(keyAlive(ip), json.RawMessage(value), clientv3.WithLease(leaseID))
		}
		if _, silent := x.silent[ip]; silent {
			p.remove(keySilent(ip))
		}
		return p, nil
	})
	if err == nil {
		r.seen.Store(ip, r.opts.Now())
	}
	return err
}

// cleanRoutes sorts routes, and leaves out default ones, which overlap all
// there is.
func cleanRoutes(routes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range routes {
		if p.Bits() > 0 {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// clashes are the routes that overlap a range of n.
func clashes(n *network.Network, routes []netip.Prefix) (out []api.RouteClash) {
	for _, p := range routes {
		if with := n.Clashes(p); len(with) > 0 {
			out = append(out, api.RouteClash{Route: p, With: with})
		}
	}
	return out
}

func checkStatus(req api.StatusRequest) error {
	if n := len(req.HostRoutes); n > api.MaxHostRoutes {
		return fail(api.CodeInvalid, "there are %d host_routes: at most %d are taken", n, api.MaxHostRoutes)
	}
	for _, o := range req.Overlays {
		if !o.State.Status.Valid() {
			return fail(api.CodeInvalid, "overlay %s: %q is not a status: one of %s, %s, %s, %s", o.Name, o.State.Status,
				lease.StatusOK, lease.StatusFailed, lease.StatusConfiguring, lease.StatusInvalid)
		}
		for _, u := range []*api.Usage{o.Addresses.Mesos, o.Addresses.Docker} {
			if u != nil && (u.Used < 0 || u.Free < 0) {
				return fail(api.CodeInvalid, "overlay %s: %d used and %d free addresses: neither can be negative", o.Name, u.Used, u.Free)
			}
		}
	}
	return nil
}

// keepAlive renews the etcd lease of the agent's alive key, or grants one if
// the agent has none: fresh is then true.
func (r *Registry) keepAlive(ctx context.Context, ip netip.Addr) (id clientv3.LeaseID, fresh bool, err error) {
	r.mu.Lock()
	known := r.idx.alive[ip]
	r.mu.Unlock()
	if known.lease != 0 {
		done := r.timed("keepalive")
		_, err := r.client.KeepAliveOnce(ctx, clientv3.LeaseID(known.lease))
		done(err)
		if err == nil {
			return clientv3.LeaseID(known.lease), false, nil
		}
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return 0, false, err
		}
	}
	done := r.timed("grant")
	granted, err := r.client.Grant(ctx, max(1, int64(r.opts.AliveTTL/time.Second)))
	done(err)
	if err != nil {
		return 0, false, err
	}
	return granted.ID, true, nil
}

// withStates returns the record with the states of req, or nil if they are
// what it has.
func withStates(a *agentEntry, ip netip.Addr, req api.StatusRequest) (*lease.Agent, error) {
	if a == nil {
		return nil, fail(api.CodeNotFound, "there is no agent %s: claim again", ip)
	}
	if req.ID != "" && req.ID != a.ID {
		return nil, fail(api.CodeNotFound, "agent %s has another id than %s: claim again", ip, req.ID)
	}
	c := a.Clone()
	changed := false
	var unknown []string
	for _, o := range req.Overlays {
		held := c.Overlay(o.Name)
		if held == nil {
			unknown = append(unknown, fmt.Sprintf("%q", o.Name))
			continue
		}
		state := o.State
		state.Error = shorten(state.Error)
		if held.State != state {
			held.State = state
			changed = true
		}
	}
	if len(unknown) > 0 {
		return nil, fail(api.CodeInvalid, "agent %s reports on overlays that it holds nothing of: %s", ip, strings.Join(unknown, ", "))
	}
	if !changed {
		return nil, nil
	}
	return c, nil
}

// shorten cuts s to maxStateError bytes and leaves it valid UTF-8.
func shorten(s string) string {
	if len(s) > maxStateError {
		s = s[:maxStateError]
	}
	return strings.ToValidUTF8(s, "")
}
