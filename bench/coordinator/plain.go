package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// servePlain is an etcd on dir that has nothing to do but what it is called
// for over TCP, with the settings of the coordinator's. It says its address
// and ends when its input does.
func servePlain(ctx context.Context, dir string) error {
	ctx, cancel := withInput(ctx)
	defer cancel()
	c := embed.NewConfig()
	c.Dir, c.TickMs, c.ElectionMs = dir, 10, 100
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(c)
	if err != nil {
		return fmt.Errorf("start etcd on %s: %w", dir, err)
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(startTimeout):
		return fmt.Errorf("start etcd on %s: it is not ready after %s", dir, startTimeout)
	}
	fmt.Println(server.Clients[0].Addr())
	<-ctx.Done()
	return nil
}

// plain is an etcd in a process of its own, and clients of it.
type plain struct {
	*process
	// one is a single connection; each has one for each client, as those who
	// claim have.
	one, each []*clientv3.Client
}

// startPlain starts an etcd on dir and connects to it.
func startPlain(ctx context.Context, dir string) (_ *plain, err error) {
	p := &plain{}
	if p.process, err = spawn(ctx, "-plain", dir); err != nil {
		return nil, fmt.Errorf("the etcd to compare with: %w", err)
	}
	for i := range clients + 1 {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{p.address}, Logger: zap.NewNop()})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("call etcd: %w", err), p.close())
		}
		if i == 0 {
			p.one = append(p.one, client)
		} else {
			p.each = append(p.each, client)
		}
	}
	return p, nil
}

func (p *plain) close() error {
	var errs []error
	for _, client := range append(p.one, p.each...) {
		errs = append(errs, client.Close())
	}
	return errors.Join(append(errs, p.stop())...)
}

// creates is what etcd can do at most: clients that create a key each in a
// transaction of its own, n in all.
// They share the connections.
func creates(ctx context.Context, shared []*clientv3.Client, round string, n int) (time.Duration, error) {
	next := numbers(n)
	begin := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		client := shared[i%len(shared)]
		group.Go(func() error {
			for i := range next {
				key := fmt.Sprintf("/raw/%s/%d", round, i)
				_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, agentIP(i))).Commit()
				if err != nil {
					return fmt.Errorf("create %s: %w", key, err)
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(begin), err
}
