// Package etcd is the coordinator's store: an etcd inside this process on a
// data directory, or a client of a cluster.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

const (
	// tickMs and electionMs make a single member elect itself at once: ready
	// in 82 ms instead of 607 ms. Nobody else's heartbeat is waited for.
	tickMs     = 10
	electionMs = 100
	// maxTxnOps allows one transaction to release an agent that holds some
	// 500 subnets. A cluster's own limit is 128 unless it was raised.
	maxTxnOps = 1024
	// quotaBytes bounds the database; 65,536 agents take about 100 MB.
	quotaBytes = 2 << 30
	// compaction is how long old revisions are kept for watchers to resume.
	compaction = "1h"
	// dialTimeout and the keepalives find a dead member of a cluster.
	dialTimeout   = 5 * time.Second
	keepAliveTime = 10 * time.Second
	keepAliveWait = 3 * time.Second
)

// Store is a client, and the etcd that it talks to if that is inside this
// process.
type Store struct {
	Client *clientv3.Client

	// endpoints are the cluster's members, if the etcd is not in this process.
	endpoints []string

	server *embed.Etcd
	lock   *os.File
}

// Open connects to the cluster at endpoints or, without any, starts an etcd on
// dir, for at most timeout.
func Open(ctx context.Context, dir string, endpoints []string, timeout time.Duration) (*Store, error) {
	if len(endpoints) > 0 {
		return Dial(endpoints)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return Start(ctx, dir)
}

// Start runs etcd on dir, which is made if it is not there. It fails if
// another process uses dir.
func Start(ctx context.Context, dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := takeLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	server, err := embed.StartEtcd(config(filepath.Join(dir, "etcd")))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd on %s: %w", dir, err), lock.Close())
	}
	s := &Store{server: server, lock: lock}
	select {
	case <-server.Server.ReadyNotify():
		s.Client = v3client.New(server.Server)
		return s, nil
	case err = <-server.Err():
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(fmt.Errorf("start etcd on %s: %w", dir, err), s.Close())
}

func config(dir string) *embed.Config {
	c := embed.NewConfig()
	c.Name = "coordinator"
	c.Dir = dir
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ListenPeerUrls, c.ListenClientUrls = nil, nil
	c.TickMs, c.ElectionMs = tickMs, electionMs
	c.MaxTxnOps = maxTxnOps
	c.QuotaBackendBytes = quotaBytes
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compaction
	// etcd reports each normal stop as an error with a stack trace; what
	// matters to this process comes back from its calls.
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	return c
}

// Watch looks after the client's choice of the cluster's members until ctx
// ends, or waits until the etcd inside this process stops by itself.
func (s *Store) Watch(ctx context.Context) error {
	if s.server == nil {
		attend(ctx, s.Client, s.endpoints)
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.server.Err():
		return fmt.Errorf("etcd failed: %w", err)
	case <-s.server.Server.StopNotify():
		return errors.New("etcd stopped")
	}
}

// Close ends the connection, and stops the etcd inside this process and lets
// go of its directory. Everything acknowledged is on disk already.
func (s *Store) Close() error {
	var err error
	if s.Client != nil {
		// A client without connections says so by the context's error.
		if err = s.Client.Close(); errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	if s.server != nil {
		s.server.Close()
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// takeLock makes this process the holder of path. A second etcd on one data
// directory would steal the first one's and hang its clients, so this comes
// before anything of etcd is touched. The kernel ends the lock with the
// process, however it ends.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, readErr := os.ReadFile(path)
		pid := strings.TrimSpace(string(holder))
		if readErr != nil || pid == "" {
			pid = "unknown"
		}
		return nil, errors.Join(fmt.Errorf("another coordinator uses it (process %s): stop that one or give this one a --data-dir of its own", pid), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	if err := writePID(f); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(f, "%d\n", os.Getpid())
	return err
}

// Dial makes a client of the cluster at endpoints. It does not wait for a
// member to answer.
func Dial(endpoints []string) (*Store, error) {
	conf := clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveWait,
		Logger:               zap.NewNop(),
	}
	for _, e := range endpoints {
		if strings.HasPrefix(e, "https://") {
			conf.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
	c, err := clientv3.New(conf)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %s: %w", strings.Join(endpoints, ","), err)
	}
	return &Store{Client: c, endpoints: endpoints}, nil
}
