package host

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/netnstest"
	"github.com/dcos/dcos-overlay/internal/network"
)

// granting is a coordinator that grants one lease, and takes a report only once
// it may.
type granting struct {
	Coordinator
	may      chan struct{}
	reported []lease.State
	closed   bool
}

func leaseOf(subnet string, revision int64) *agentstate.Held {
	return &agentstate.Held{
		Agent: lease.Agent{
			ID: "id", IP: netip.MustParseAddr("127.0.0.1"), Config: lease.DefaultNetworkConfig(),
			VTEP:     lease.VTEP{IP: netip.MustParsePrefix("44.128.0.1/20"), MAC: network.MAC{0x70, 0xb3, 0xd5, 0x80, 0, 1}},
			Overlays: []lease.Overlay{{Name: "dcos", Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}}},
		},
		Network: network.Network{
			VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"),
			Overlays:   []network.Overlay{{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24}},
		},
		Revision: revision,
	}
}

func (g *granting) Claim(context.Context, netip.Addr, api.ClaimRequest) (api.ClaimResponse, error) {
	held := leaseOf("9.0.0.0/24", 7)
	return api.ClaimResponse{Agent: held.Agent, Network: held.Network, Revision: held.Revision}, nil
}

func (g *granting) Agents(context.Context) (api.AgentsResponse, error) {
	return api.AgentsResponse{Agents: []lease.Agent{leaseOf("9.0.0.0/24", 7).Agent}}, nil
}

func (g *granting) Report(ctx context.Context, _ netip.Addr, req api.StatusRequest) error {
	select {
	case <-g.may:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, o := range req.Overlays {
		g.reported = append(g.reported, o.State)
	}
	return nil
}

func (g *granting) Close() { g.closed = true }

// TestPrepareLeavesItsReportUnderWay: a container does not wait for it, but all
// that the next start goes by is on disk.
func TestPrepareLeavesItsReportUnderWay(t *testing.T) {
	netnstest.Enter(t)
	h := New(agentconf.Config{
		IP: netip.MustParseAddr("127.0.0.1"), Network: lease.DefaultNetworkConfig(), VTEPTxOffload: true,
		StateDir: t.TempDir(), RunDir: t.TempDir(),
	}, slog.New(slog.DiscardHandler))
	g := &granting{may: make(chan struct{})}
	h.Dial = func(agentconf.Config, netip.Addr) (Coordinator, error) { return g, nil }
	held, err := h.Prepare(t.Context(), "dcos", func(held *agentstate.Held) bool { return held != nil })
	if err != nil {
		t.Fatal(err)
	}
	if g.closed {
		t.Error("the report was waited for")
	}
	if kept, err := h.Dir.Held(); err != nil || kept == nil || kept.Revision != 7 || !h.Dir.Current(held) {
		t.Errorf("the lease on disk is %+v, %v", kept, err)
	}
	if peers, err := h.Dir.Peers(); err != nil || len(peers) != 1 {
		t.Errorf("the peers on disk are %v, %v", peers, err)
	}
	if !h.Dir.Ready("dcos") {
		t.Error("the host is not marked as set up")
	}
	close(g.may)
	h.Wait()
	if len(g.reported) != 1 || g.reported[0].Status != lease.StatusOK || !g.closed {
		t.Errorf("reported is %v; closed: %t", g.reported, g.closed)
	}
}

// TestTheOldLeaseIsReplacedFirst: a process that is killed while it sets the
// host up by a new lease must not leave the old one to the next.
func TestTheOldLeaseIsReplacedFirst(t *testing.T) {
	dir := t.TempDir()
	h := New(agentconf.Config{StateDir: dir, RunDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	old := leaseOf("9.0.0.0/24", 1)
	if err := h.Dir.Save(old); err != nil {
		t.Fatal(err)
	}
	if _, err := h.keeping(leaseOf("9.0.1.0/24", 2), old, "dcos"); err != nil {
		t.Fatal(err)
	}
	if kept, err := h.Dir.Held(); err != nil || kept.Revision != 2 {
		t.Errorf("the lease on disk is %+v, %v", kept, err)
	}

	// There is no room for a new one.
	h.Dir.State = filepath.Join(dir, "file")
	if err := os.WriteFile(h.Dir.State, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.keeping(leaseOf("9.0.0.0/24", 2), old, "dcos"); err != nil {
		t.Errorf("one that grants the same: %v", err)
	}
	_, err := h.keeping(leaseOf("9.0.1.0/24", 2), old, "dcos")
	if err == nil || !strings.Contains(err.Error(), "claim a subnet for agent 127.0.0.1: keep the lease: ") {
		t.Errorf("one that grants another subnet: %v", err)
	}
	kept, err := h.keeping(leaseOf("9.0.1.0/24", 2), nil, "dcos")
	if err != nil {
		t.Fatal(err)
	}
	if err := kept(); err == nil || !strings.Contains(err.Error(), "keep the lease: ") {
		t.Errorf("the first one: %v", err)
	}
}
