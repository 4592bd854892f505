package integration

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// TestCompactedWhileAway: an agent comes and another changes while host a's
// companion is away, etcd forgets how, and the coordinators who heard of it
// are gone as well. The companion goes on from a revision that nobody knows.
func TestCompactedWhileAway(t *testing.T) {
	const url = "http://172.17.0.2:2379"
	ctx := t.Context()
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(bin, "etcd"), "./etcd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build etcd: %v: %s", err, out)
	}
	s := newScene(t)
	check(t, s.Coordinator.Kill())
	must[*lab.Process](t)(s.Master.Start(ctx, "etcd", filepath.Join(bin, "etcd"), "-name", "m", "-data-dir", "/var/lib/etcd",
		"-client-url", url, "-peer-url", "http://172.17.0.2:2380", "-initial-cluster", "m=http://172.17.0.2:2380"))
	check(t, s.StartCoordinator(ctx, "--etcd", url))
	check(t, s.StartCompanion(ctx, s.A))
	check(t, s.StartCompanion(ctx, s.B))
	awaitPeers(t, s)

	check(t, s.Companions["a"].Stop(ctx))
	check(t, s.StartCompanion(ctx, s.Master))
	before := must[string](t)(s.A.Run(ctx, "ip", "route", "show", "proto", "44"))
	client := must[*clientv3.Client](t)(clientv3.New(clientv3.Config{
		Endpoints: []string{url}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return s.A.DialContext(ctx, "tcp", address)
		})},
	}))
	defer client.Close()
	now := must[*clientv3.GetResponse](t)(client.Get(ctx, "any"))
	_, err := client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	check(t, err)
	if _, err := client.Get(ctx, "any", clientv3.WithRev(1)); err == nil {
		t.Fatal("etcd still knows its first revision")
	}
	check(t, s.Coordinator.Kill())
	check(t, s.StartCoordinator(ctx, "--etcd", url))

	began := time.Now()
	check(t, s.StartCompanion(ctx, s.A))
	awaitPeers(t, s)
	t.Logf("host a knew %q, and knows all again %s after its companion's start", before, time.Since(began).Round(time.Millisecond))
}
