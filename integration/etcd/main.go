// Command etcd runs one member of an etcd cluster as a process of its own, for
// tests that kill, pause and cut off members.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

const (
	// tickMs and electionMs elect a new leader within a second, so that a
	// short test sees many of them.
	tickMs, electionMs = 50, 500
	// snapshotEvery and catchUp, in entries of the log, are so few that a
	// member which was away for a moment is sent a snapshot.
	snapshotEvery, catchUp = 500, 50
)

type options struct {
	name, dir, client, peer, cluster string
}

func main() {
	var o options
	flag.StringVar(&o.name, "name", "", "the member's name")
	flag.StringVar(&o.dir, "data-dir", "", "where the member keeps its data")
	flag.StringVar(&o.client, "client-url", "", "where clients find it, such as http://10.0.0.1:2379")
	flag.StringVar(&o.peer, "peer-url", "", "where the other members find it, such as http://10.0.0.1:2380")
	flag.StringVar(&o.cluster, "initial-cluster", "", "all members: name=peer-url,…")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	conf, err := config(o)
	if err != nil {
		return err
	}
	server, err := embed.StartEtcd(conf)
	if err != nil {
		return fmt.Errorf("start member %s: %w", o.name, err)
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("member %s failed: %w", o.name, err)
	case <-server.Server.StopNotify():
		return errors.New("member " + o.name + " stopped by itself")
	}
}

func config(o options) (*embed.Config, error) {
	client, err := url.Parse(o.client)
	if err != nil {
		return nil, fmt.Errorf("-client-url: %w", err)
	}
	peer, err := url.Parse(o.peer)
	if err != nil {
		return nil, fmt.Errorf("-peer-url: %w", err)
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster = o.name, o.dir, o.cluster
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.TickMs, c.ElectionMs = tickMs, electionMs
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotEvery, catchUp
	// Every lost peer and every slow disk is a warning, and here they are many.
	c.LogLevel = "error"
	c.LogOutputs = []string{"stderr"}
	return c, nil
}
