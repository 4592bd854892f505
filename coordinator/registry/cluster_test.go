package registry_test

import (
	"net/url"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
)

// TestClusterOfOthers works over a connection, on an etcd with its usual
// limits, in which somebody else has keys too: their revisions are no events
// of ours, and must not be waited for in vain.
func TestClusterOfOthers(t *testing.T) {
	dir := t.TempDir()
	socket := url.URL{Scheme: "unix", Path: filepath.Join(dir, "etcd.sock")}
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "data")
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{socket}
	c.TickMs, c.ElectionMs = 10, 100
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	<-server.Server.ReadyNotify()

	var worlds []*world
	for range 2 {
		s, err := etcd.Dial(etcd.Access{Endpoints: []string{socket.String()}})
		if err != nil {
			t.Fatal(err)
		}
		clock := newClock()
		r, stop := start(t, s, registry.Options{Now: clock.Now, Quarantine: quarantine})
		defer func() {
			stop()
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
		if _, err := r.Seed(t.Context(), parse(t, sample)); err != nil {
			t.Fatal(err)
		}
		w := &world{Registry: r, t: t, store: s, clock: clock}
		w.ready(r)
		worlds = append(worlds, w)
	}
	a, b := worlds[0], worlds[1]
	check(t, "claim at one", brief(a.claim(1, "a", "dcos")), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24]")
	check(t, "claim at the other", brief(b.claim(2, "b", "dcos")), "172.17.0.2 44.128.0.2/20 fd01:a::2/64 dcos[9.0.1.0/24]")
	foreign, err := a.store.Client.Put(t.Context(), "/somebody-else", "1")
	if err != nil {
		t.Fatal(err)
	}
	b.watch(b.Registry, foreign.Header.Revision).expect("synced")
	check(t, "move at the other", brief(b.claim(3, "a")), "172.17.0.3 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24]")
	a.release(2)

	// These take more operations than such an etcd allows in one transaction.
	many := bigState(t, 62)
	many.Agents = many.Agents[2:] // the first two are somebody's here
	b.imported(many, api.ImportResponse{Imported: 60})
	check(t, "gone", a.remove("dcos", true), true)
	if err := b.Delete(t.Context(), allOf(many), false); err != nil {
		t.Error(err)
	}
	b.gone("dcos")
	check(t, "agents", len(registrytest.Whole(t, a.store.Client)), 1)
}
