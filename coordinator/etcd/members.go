package etcd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// probeInterval and probeTimeout find a member that hangs, or that has
	// lost the others, within two seconds. gRPC's keepalives take 13 s for the
	// first, for it allows none more often than every 10 s, and never see the
	// second; and each member gets its share of the calls until then.
	probeInterval = time.Second
	probeTimeout  = time.Second
)

// attend keeps the client away from members that can't serve, until they can.
func attend(ctx context.Context, client *clientv3.Client, endpoints []string) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		use := serving(ctx, client, endpoints)
		if len(use) == 0 {
			// Nobody knows then which one will be the first to come back.
			use = endpoints
		}
		if ctx.Err() == nil && !slices.Equal(use, client.Endpoints()) {
			client.SetEndpoints(use...)
		}
	}
}

// serving are those of endpoints that answer in time and have a leader. An
// answer that refuses to say is an answer.
func serving(ctx context.Context, client *clientv3.Client, endpoints []string) []string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	ok := make([]bool, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() {
			status, err := client.Status(ctx, e)
			if err != nil {
				ok[i] = ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded)
				return
			}
			ok[i] = status.Leader != 0
		})
	}
	wg.Wait()
	var out []string
	for i, e := range endpoints {
		if ok[i] {
			out = append(out, e)
		}
	}
	return out
}
