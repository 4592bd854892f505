package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/api"
)

const (
	// nodes is the number of hosts that have a member and a coordinator each.
	nodes = 3
	// agents is the number of clients, each of which acts for an agent.
	agents = 32
	// quarantine is so short that what was released is soon leased again.
	quarantine = 500 * time.Millisecond
	// readyTimeout bounds a daemon's start on a busy machine.
	readyTimeout = 3 * time.Minute
	configPath   = "/etc/dcos-overlay/master.json"
)

// masterJSON has an overlay with fewer subnets than the clients may want at
// once, and enough of everything else.
const masterJSON = `{"vtep_subnet": "44.128.0.0/25", "vtep_subnet6": "fd01:a::/120", "vtep_mac_oui": "70:B3:D5:00:00:00",
  "overlays": [
    {"name": "red", "subnet": "9.0.0.0/19", "prefix": 24},
    {"name": "blue", "subnet": "9.1.0.0/17", "prefix": 24, "subnet6": "fd01:b::/64", "prefix6": 80}]}`

// cluster is a lab with the daemons on nodes hosts, and one more host that the
// clients call from.
type cluster struct {
	hosts        [nodes]*lab.Host
	members      [nodes]*daemon
	coordinators [nodes]*daemon
	clients      *lab.Host
}

// daemon is a program that is ended and started again. mu is held by whoever
// does something to it, so that faults take turns.
type daemon struct {
	mu   sync.Mutex
	host *lab.Host
	name string
	args []string
	proc *lab.Process
}

func (d *daemon) start(ctx context.Context) (err error) {
	d.proc, err = d.host.Start(ctx, d.name, d.args...)
	return err
}

// alive is an error if the daemon has ended by itself.
func (d *daemon) alive() error {
	select {
	case <-d.proc.Done():
		text := d.proc.Log()
		return fmt.Errorf("%s on host %s ended by itself; its log ends:\n%s", d.name, d.host.Name, text[max(0, len(text)-4000):])
	default:
		return nil
	}
}

// kill ends the daemon by SIGKILL, and starts it again after down.
func (d *daemon) kill(ctx context.Context, down time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.alive(); err != nil {
		return err
	}
	if err := d.proc.Kill(); err != nil {
		return err
	}
	pass(ctx, down)
	return d.start(context.WithoutCancel(ctx))
}

// pause stops the daemon for a while by SIGSTOP.
func (d *daemon) pause(ctx context.Context, length time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.alive(); err != nil {
		return err
	}
	if err := d.proc.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	pass(ctx, length)
	return d.proc.Signal(unix.SIGCONT)
}

// pass lets time pass, or ctx end.
func pass(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// newCluster starts everything and waits until it is ready. All of it ends
// with the test.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	l, err := lab.New(lab.Options{Bin: chosen.bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{}
	if err := c.build(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, d := range append(c.members[:], c.coordinators[:]...) {
			text := d.proc.Log()
			t.Logf("the log of %s on host %s ends:\n%s", d.name, d.host.Name, text[max(0, len(text)-2000):])
		}
	})
	return c
}

func (c *cluster) build(ctx context.Context, l *lab.Lab) (err error) {
	var urls, initial []string
	for i := range nodes {
		c.hosts[i], err = l.AddHost(ctx, fmt.Sprintf("n%d", i), netip.AddrFrom4([4]byte{172, 17, 1, byte(i + 1)}))
		if err != nil {
			return err
		}
		urls = append(urls, clientURL(c.hosts[i]))
		initial = append(initial, c.hosts[i].Name+"="+peerURL(c.hosts[i]))
	}
	for i, h := range c.hosts {
		if err := h.WriteFile(ctx, configPath, []byte(masterJSON)); err != nil {
			return err
		}
		// What is rarely said of the others, and may be the cause, is kept.
		c.members[i] = &daemon{host: h, name: "etcd", args: []string{filepath.Join(chosen.bin, "etcd"),
			"-name", h.Name, "-data-dir", "/var/lib/etcd", "-client-url", clientURL(h), "-peer-url", peerURL(h),
			"-initial-cluster", strings.Join(initial, ",")}}
		c.coordinators[i] = &daemon{host: h, name: "coordinator", args: []string{filepath.Join(chosen.bin, "coordinator"),
			"--config", configPath, "--etcd", strings.Join(urls, ","), "--quarantine", quarantine.String(), "--alive-ttl", "1s", "--log-level", "warn"}}
		if err := errors.Join(c.members[i].start(ctx), c.coordinators[i].start(ctx)); err != nil {
			return err
		}
	}
	if c.clients, err = l.AddHost(ctx, "clients", netip.MustParseAddr("172.17.2.1")); err != nil {
		return err
	}
	var batch strings.Builder
	for n := range agents {
		for _, ip := range agentIPs(n) {
			fmt.Fprintf(&batch, "addr add %s/16 dev eth0\n", ip)
		}
	}
	if _, err := c.clients.RunInput(ctx, []byte(batch.String()), "ip", "-batch", "-"); err != nil {
		return err
	}
	return c.ready(ctx)
}

func clientURL(h *lab.Host) string { return fmt.Sprintf("http://%s:2379", h.Addr) }
func peerURL(h *lab.Host) string   { return fmt.Sprintf("http://%s:2380", h.Addr) }

// agentIPs are the two addresses that agent n may have.
func agentIPs(n int) [2]netip.Addr {
	return [2]netip.Addr{
		netip.AddrFrom4([4]byte{172, 17, 100, byte(n + 1)}),
		netip.AddrFrom4([4]byte{172, 17, 101, byte(n + 1)}),
	}
}

// ready waits until every coordinator is.
func (c *cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for i, h := range c.hosts {
		err := lab.Until(ctx, "the coordinator on host "+h.Name+" to be ready", func(ctx context.Context) error {
			if err := errors.Join(c.members[i].alive(), c.coordinators[i].alive()); err != nil {
				return err
			}
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			code, body, err := c.clients.HTTP(try, http.MethodGet, h.CoordinatorURL()+"/readyz", nil)
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("it answers %d: %s", code, body)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// agentsAt reads what coordinator i knows.
func (c *cluster) agentsAt(ctx context.Context, i int) (api.AgentsResponse, error) {
	var out api.AgentsResponse
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	code, body, err := c.clients.HTTP(ctx, http.MethodGet, c.hosts[i].CoordinatorURL()+api.PathAgents, nil)
	if err != nil {
		return out, err
	}
	if code != http.StatusOK {
		return out, fmt.Errorf("coordinator %d answers %d: %s", i, code, body)
	}
	return out, json.Unmarshal(body, &out)
}

// etcd makes a client of the whole etcd cluster; the caller closes it.
func (c *cluster) etcd() (*clientv3.Client, error) {
	var urls []string
	for _, h := range c.hosts {
		urls = append(urls, clientURL(h))
	}
	return clientv3.New(clientv3.Config{
		Endpoints:   urls,
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return c.clients.DialContext(ctx, "tcp", address)
		})},
	})
}
