// Package etcd is the coordinator's store: an etcd inside this process on a
// data directory, or a client of a cluster.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/dcos/dcos-overlay/internal/tlsfile"
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
	// The keepalives find a dead member of a cluster for a watch.
	keepAliveTime = 10 * time.Second
	keepAliveWait = 3 * time.Second
)

// Store is a client, and the etcd that it talks to if that is inside this
// process.
type Store struct {
	Client *clientv3.Client

	// prober asks members how they are. Of a cluster it is a client of its own:
	// to ask one of them reads, without a lock, what to choose members writes.
	prober *clientv3.Client
	// endpoints are the cluster's members; of the etcd in this process it is
	// one that has no name.
	endpoints []string
	health    health
	// trouble is what calls of a cluster met with; nil for the etcd in this
	// process.
	trouble *trouble
	// news are for calls of a cluster, left for whoever watches it.
	news *news
	left chan struct{}
	log  *slog.Logger

	server *embed.Etcd
	lock   *os.File
}

// Open connects to the cluster that access names or, without endpoints, starts
// an etcd on dir, for at most timeout.
func Open(ctx context.Context, dir string, access Access, timeout time.Duration) (*Store, error) {
	if len(access.Endpoints) > 0 {
		return Dial(access)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s, err := Start(ctx, dir)
	if err != nil {
		return nil, err
	}
	s.log = logOf(access)
	return s, nil
}

// logOf is where health is told to.
func logOf(a Access) *slog.Logger {
	if a.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return a.Log
}

// Start runs etcd on dir, which is made if it is not there. It fails if
// another process uses dir.
func Start(ctx context.Context, dir string) (*Store, error) {
	return start(ctx, dir, quotaBytes)
}

// start is Start with a quota of that many bytes.
func start(ctx context.Context, dir string, quota int64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", forbidden(err))
	}
	lock, err := takeLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("use data directory %s: %w", dir, forbidden(err))
	}
	conf := config(filepath.Join(dir, "etcd"))
	conf.QuotaBackendBytes = quota
	server, err := embed.StartEtcd(conf)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd on %s: %w", dir, err), lock.Close())
	}
	s := &Store{server: server, lock: lock, endpoints: []string{""}, log: logOf(Access{})}
	select {
	case <-server.Server.ReadyNotify():
		s.Client = v3client.New(server.Server)
		s.prober = s.Client
		if err = s.slim(ctx); err == nil {
			return s, nil
		}
	case err = <-server.Err():
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(fmt.Errorf("start etcd on %s: %w", dir, err), s.Close())
}

// forbidden is err with what to do where the user may not write there.
func forbidden(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: give --data-dir one that user %d may write to", err, os.Geteuid())
	}
	return err
}

func config(dir string) *embed.Config {
	c := embed.NewConfig()
	c.Name = "coordinator"
	c.Dir = dir
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ListenPeerUrls, c.ListenClientUrls = nil, nil
	c.TickMs, c.ElectionMs = tickMs, electionMs
	c.MaxTxnOps = maxTxnOps
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compaction
	// etcd reports each normal stop as an error with a stack trace; what
	// matters to this process comes back from its calls.
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	return c
}

// Watch looks after etcd's health until ctx ends, or until the etcd inside this
// process stops by itself; of a cluster it chooses the members to use.
func (s *Store) Watch(ctx context.Context) error {
	if s.server == nil {
		s.attend(ctx)
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { s.attend(ctx) })
	wg.Go(func() { s.keepUp(ctx) })
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
	if s.prober != nil && s.prober != s.Client {
		if proberErr := s.prober.Close(); !errors.Is(proberErr, context.Canceled) {
			err = errors.Join(err, proberErr)
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

// Dial makes a client of the cluster that access names, of which Check finds
// no fault. It does not wait for a member to answer.
func Dial(access Access) (*Store, error) {
	c := &calls{login: newLogin(access), trouble: newTrouble(access), news: newNews()}
	conf := clientv3.Config{
		Endpoints:            access.Endpoints,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveWait,
		Logger:               zap.NewNop(),
		DialOptions:          []grpc.DialOption{grpc.WithChainUnaryInterceptor(c.unary), grpc.WithChainStreamInterceptor(c.stream)},
	}
	if access.secure() {
		files, err := tlsfile.Open(access.files())
		if err != nil {
			return nil, err
		}
		c.trouble.tls = &handshaker{files: files}
		conf.DialOptions = append(conf.DialOptions, grpc.WithTransportCredentials(c.trouble.tls.Clone()))
	}
	client, err := clientv3.New(conf)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %s: %w", strings.Join(access.Endpoints, ","), err)
	}
	prober, err := clientv3.New(conf)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to etcd at %s: %w", strings.Join(access.Endpoints, ","), err), client.Close())
	}
	return &Store{Client: client, prober: prober, endpoints: access.Endpoints, trouble: c.trouble, news: c.news, left: make(chan struct{}, 1), log: logOf(access)}, nil
}
