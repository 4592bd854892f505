package host

import (
	"context"
	"errors"
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Coordinator is what a host asks of the coordinators. Refusals are api.Error,
// and where none answers the error is api.ErrUnreachable. *apiclient.Client is
// one; the plugins, which are started for each container, have another one ask.
type Coordinator interface {
	Claim(ctx context.Context, ip netip.Addr, req api.ClaimRequest) (api.ClaimResponse, error)
	ClaimAddress(ctx context.Context, ip netip.Addr, overlay string, addr netip.Addr, req api.AddressRequest) (api.ClaimResponse, error)
	ReleaseAddress(ctx context.Context, ip netip.Addr, overlay string, addr netip.Addr, container, ifName string) error
	Report(ctx context.Context, ip netip.Addr, req api.StatusRequest) error
	Agents(ctx context.Context) (api.AgentsResponse, error)
	Overlay(ctx context.Context, name string) (network.Overlay, error)
	OverlayStatus(ctx context.Context, name string) (api.Overlay, error)
	Close()
}

// Dialer makes a Coordinator that is called from ip.
type Dialer func(conf agentconf.Config, ip netip.Addr) (Coordinator, error)

func (h *Host) client(ip netip.Addr) (Coordinator, error) {
	if h.Dial == nil {
		return nil, errors.New("ask a coordinator: this program has no way to")
	}
	return h.Dial(h.Conf, ip)
}
