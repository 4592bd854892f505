package page

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/server"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/tlsfile"
)

// crowd is a coordinator in this process, on a port of loopback, and agents
// that are played.
type crowd struct {
	t        *testing.T
	registry *registry.Registry
	store    *etcd.Store
	url      string
	// stop ends the coordinator's HTTP, as if it went away.
	stop func()
}

// newCrowd starts a coordinator without agents; files, if not nil, make it one
// that asks for client certificates.
func newCrowd(t *testing.T, files *tlsfile.Reader) *crowd {
	t.Helper()
	store, err := etcd.Start(t.Context(), t.TempDir())
	check(t, err)
	c := &crowd{t: t, store: store}
	// Nobody repeats what the agents report.
	c.registry = registry.New(store.Client, registry.Options{AliveTTL: time.Hour})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	c.url = "http://" + l.Addr().String()
	if files != nil {
		c.url = "https://" + l.Addr().String()
	}
	running, halt := context.WithCancel(context.Background())
	serving, stop := context.WithCancel(running)
	c.stop = stop
	group, _ := errgroup.WithContext(running)
	group.Go(func() error { return c.registry.Run(running) })
	srv := server.New(server.Options{Registry: c.registry, TLS: files, Log: slog.New(slog.DiscardHandler)})
	group.Go(func() error { return srv.Serve(serving, l) })
	t.Cleanup(func() {
		stop()
		halt()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	_, err = c.registry.Seed(t.Context(), network.Network{
		VTEPSubnet: netip.MustParsePrefix("44.128.0.0/15"), VTEPSubnet6: netip.MustParsePrefix("fd01:a::/64"), VTEPMACOUI: "70:B3:D5:00:00:00",
		Overlays: []network.Overlay{
			{Name: "dcos", Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24},
			{Name: "dual", Subnet: netip.MustParsePrefix("10.64.0.0/10"), Prefix: 26, Subnet6: netip.MustParsePrefix("fd01:b::/48"), Prefix6: 80},
			{Name: "edge", Subnet: netip.MustParsePrefix("10.200.0.0/22"), Prefix: 26},
			{Name: "legacy", Subnet: netip.MustParsePrefix("10.210.0.0/20"), Prefix: 26},
			{Name: "batch", Subnet: netip.MustParsePrefix("10.220.0.0/16"), Prefix: 26},
		},
	})
	check(t, err)
	return c
}

// addr is the address of the n-th agent, from 0 on.
func addr(n int) netip.Addr {
	n += 10
	return netip.AddrFrom4([4]byte{172, byte(20 + n>>16), byte(n >> 8), byte(n)})
}

// join makes n agents, each in one of the ways that agents can be; only is the
// overlays that there are for them.
func (c *crowd) join(n int, only []string) {
	c.t.Helper()
	begin := time.Now()
	group, ctx := errgroup.WithContext(c.t.Context())
	group.SetLimit(32)
	for i := range n {
		group.Go(func() error { return c.play(ctx, i, only) })
	}
	check(c.t, group.Wait())
	c.t.Logf("%d agents have claimed and reported in %s", n, time.Since(begin).Round(time.Millisecond))
}

// change brings the overlays into all the ways that they can be.
func (c *crowd) change() {
	c.t.Helper()
	ctx := c.t.Context()
	_, err := c.registry.DeleteOverlay(ctx, "legacy", false)
	check(c.t, err)
	off := false
	batch, _ := c.registry.Network().Overlay("batch")
	batch.Enabled = &off
	_, err = c.registry.PutOverlay(ctx, batch)
	check(c.t, err)
	// These are gone again, and what they held rests.
	for i := range 40 {
		ip := addr(*agents + i)
		_, err := c.registry.Claim(ctx, ip, api.ClaimRequest{ID: fmt.Sprintf("gone-%d", i), Overlays: []string{"dual"}})
		check(c.t, err)
		check(c.t, c.registry.Release(ctx, ip))
	}
}

// subnet is what the agent at ip holds of an overlay.
func (c *crowd) subnet(ip netip.Addr, overlay string) netip.Prefix {
	c.t.Helper()
	a, err := c.registry.Agent(c.t.Context(), ip)
	check(c.t, err)
	return a.Overlay(overlay).Subnets[0]
}

// play makes one agent claim, of those of its overlays that are in only, and
// report.
func (c *crowd) play(ctx context.Context, i int, only []string) error {
	ip := addr(i)
	overlays := []string{"dcos"}
	if i%2 == 0 {
		overlays = append(overlays, "dual")
	}
	if i < 16 {
		overlays = append(overlays, "edge")
	}
	if i%50 == 3 && i < 400 {
		overlays = append(overlays, "legacy")
	}
	overlays = slices.DeleteFunc(overlays, func(name string) bool { return !slices.Contains(only, name) })
	config := lease.DefaultNetworkConfig()
	if i < 3 {
		// The first ones are Mesos masters.
		overlays, config.MesosBridge, config.DockerBridge = nil, false, false
	}
	_, err := c.registry.Claim(ctx, ip, api.ClaimRequest{
		ID: fmt.Sprintf("5f0c2b7e-%04x-4d1a-9c37-%012x", i, i*7919), Overlays: overlays, NetworkConfig: &config,
	})
	if err != nil {
		return err
	}
	if silent(i) {
		return c.silence(ctx, ip, time.Now().Add(-time.Duration(1+i%300)*7*time.Minute))
	}
	return c.report(ctx, i, overlays, stateOf(i))
}

// silent tells whether the i-th agent has not reported for long.
func silent(i int) bool { return i%400 == 17 }

func stateOf(i int) lease.State {
	switch {
	case i == 21 || i%1500 == 42:
		return lease.State{Status: lease.StatusFailed, Error: "Docker Engine not reachable at unix:///var/run/docker.sock: connect: no such file or directory"}
	case i == 30:
		return lease.State{Status: lease.StatusFailed, Error: "docker network dcos exists and is not ours: remove it, or name it in docker_network"}
	case i%2500 == 8:
		return lease.State{Status: lease.StatusConfiguring}
	}
	return lease.State{Status: lease.StatusOK}
}

// report makes the i-th agent say that it is so.
func (c *crowd) report(ctx context.Context, i int, overlays []string, first lease.State) error {
	req := api.StatusRequest{}
	for n, name := range overlays {
		state := lease.State{Status: lease.StatusOK}
		if n == 0 {
			state = first
		}
		all := int64(123)
		if name != "dcos" {
			all = 27
		}
		used := min(all, int64(i*i*31+n*17)%(all*3/4)/int64(1+n))
		if i%700 == 25 {
			used = all
		} else if i%300 == 24 {
			used = all - 9
		}
		docker := used / 3
		req.Overlays = append(req.Overlays, api.OverlayStatus{Name: name, State: state, Addresses: api.Addresses{
			Mesos:  &api.Usage{Used: used, Free: all - used},
			Docker: &api.Usage{Used: docker, Free: all + 2 - docker},
		}})
	}
	if i%9 == 0 {
		req.HostRoutes = []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16"), netip.MustParsePrefix("192.168.40.0/24")}
	}
	return c.registry.Status(ctx, addr(i), req)
}

// silence makes an agent one that is silent, in the way in which coordinators
// tell each other: to wait for it would take as long as it is silent.
func (c *crowd) silence(ctx context.Context, ip netip.Addr, since time.Time) error {
	value, err := json.Marshal(map[string]time.Time{"since": since.UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	_, err = c.store.Client.Put(ctx, "/dcos-overlay/v1/silent/"+ip.String(), string(value))
	return err
}
