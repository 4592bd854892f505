package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/network/networkfile"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const quarantine = 10 * time.Minute

// sample is DC/OS's usual network.
const sample = `{
  "vtep_subnet": "44.128.0.0/20", "vtep_subnet6": "fd01:a::/64", "vtep_mac_oui": "70:B3:D5:00:00:00",
  "overlays": [
    {"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 24},
    {"name": "dcos6", "subnet6": "fd01:b::/64", "prefix6": 80},
    {"name": "off", "subnet": "10.9.0.0/16", "prefix": 24, "enabled": false}
  ]}`

// small has four subnets of each kind, and six VTEP addresses.
const small = `{
  "vtep_subnet": "44.128.0.0/29", "vtep_mac_oui": "70:B3:D5:00:00:00",
  "overlays": [{"name": "dcos", "subnet": "9.0.0.0/22", "prefix": 24}]}`

func parse(t testing.TB, text string) network.Network {
	t.Helper()
	n, err := networkfile.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func store(t testing.TB, dir string) *etcd.Store {
	t.Helper()
	s, err := etcd.Start(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// clock is a time that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// start runs a registry on s until the returned function is called.
func start(t testing.TB, s *etcd.Store, opts registry.Options) (*registry.Registry, func()) {
	t.Helper()
	r := registry.New(s.Client, opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// world is one etcd with one registry, and a clock.
type world struct {
	*registry.Registry
	t     testing.TB
	store *etcd.Store
	clock *clock
}

func newWorld(t testing.TB, config string, opts registry.Options) *world {
	t.Helper()
	w := &world{t: t, store: store(t, t.TempDir()), clock: newClock()}
	opts.Now, opts.Quarantine = w.clock.Now, quarantine
	r, stop := start(t, w.store, opts)
	w.Registry = r
	t.Cleanup(func() {
		stop()
		if !t.Failed() {
			registrytest.Whole(t, w.store.Client)
		}
		if err := w.store.Close(); err != nil {
			t.Errorf("close etcd: %v", err)
		}
	})
	if _, err := r.Seed(t.Context(), parse(t, config)); err != nil {
		t.Fatal(err)
	}
	w.ready(r)
	return w
}

// ready waits until r knows the configuration.
func (w *world) ready(r *registry.Registry) {
	w.t.Helper()
	w.until("the registry is ready", func() bool { return r.Ready(w.t.Context()) == nil })
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func ip(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)}) }

func (w *world) claim(i int, id string, overlays ...string) lease.Agent {
	w.t.Helper()
	resp, err := w.Claim(w.t.Context(), ip(i), api.ClaimRequest{ID: id, Overlays: overlays})
	if err != nil {
		w.t.Fatalf("claim of %s: %v", ip(i), err)
	}
	return resp.Agent
}

func (w *world) release(i int) {
	w.t.Helper()
	if err := w.Release(w.t.Context(), ip(i)); err != nil {
		w.t.Fatalf("release of %s: %v", ip(i), err)
	}
}

// brief is an agent in one line.
func brief(a lease.Agent) string {
	s := fmt.Sprintf("%s %s", a.IP, a.VTEP.IP)
	if a.VTEP.IP6.IsValid() {
		s += " " + a.VTEP.IP6.String()
	}
	if a.Config.OverlayMTU != 0 {
		s += fmt.Sprintf(" mtu=%d", a.Config.OverlayMTU)
	}
	for _, o := range a.Overlays {
		s += fmt.Sprintf(" %s%v", o.Name, o.AllSubnets())
	}
	return s
}

func check(t testing.TB, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func wantCode(t testing.TB, err error, code api.Code, message string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code || e.Message != message {
		t.Errorf("got %v,\nwant %s: %s", err, code, message)
	}
}
