// Command dcos-overlay-coordinator leases VTEP addresses and subnets to agents and
// tells each of them about all others. Its truth is in etcd: one inside this
// process, or a cluster.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/headroom"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/server"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// startTimeout bounds how long an etcd inside this process may take to
	// start, and seedTimeout one try to write the configuration to etcd.
	startTimeout = time.Minute
	seedTimeout  = 10 * time.Second
	// startRetry is the pause before etcd is asked again.
	startRetry = 500 * time.Millisecond
	// importTimeout bounds an import: 65,536 agents take some 10 seconds.
	importTimeout = 5 * time.Minute
	// clashTimeout bounds how long the first call waits for a comparison with
	// hosts' routes, and maxClashes the lines about them.
	clashTimeout = 2 * time.Second
	maxClashes   = 20
	exitRuntime  = 1
	exitUsage    = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	cmd := command()
	cmd.SetErr(os.Stderr)
	err := cmd.ExecuteContext(ctx)
	var usage usageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "dcos-overlay-coordinator: %v\n", err)
		os.Exit(exitUsage)
	case err != nil:
		fmt.Fprintf(os.Stderr, "dcos-overlay-coordinator: %v\n", err)
		os.Exit(exitRuntime)
	}
}

func run(ctx context.Context, o options, stderr io.Writer) (err error) {
	defer headroom.Take().Release()
	log, err := logger(o, stderr)
	if err != nil {
		return err
	}
	if o.quarantine <= 0 || o.aliveTTL < time.Second {
		return usageError{errors.New("--quarantine must be positive, and --alive-ttl at least 1s")}
	}
	if o.reclaimAfter != 0 && o.reclaimAfter < o.aliveTTL {
		return usageError{fmt.Errorf("--reclaim-after is %s: it must be 0 for never, or not less than --alive-ttl (%s)", o.reclaimAfter, o.aliveTTL)}
	}
	if o.mesosGrace < o.aliveTTL {
		return usageError{fmt.Errorf("--mesos-grace is %s: it must not be less than --alive-ttl (%s)", o.mesosGrace, o.aliveTTL)}
	}
	if err := o.sources.check(log); err != nil {
		return err
	}
	want, err := configuration(o.config)
	if err != nil {
		return err
	}
	imports, err := readImport(o.imports)
	if err != nil {
		return err
	}
	door, err := o.door.options(log)
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, o.listen)
	if err != nil {
		return err
	}
	follower, err := o.sources.follower()
	if err != nil {
		return err
	}
	store, err := etcd.Open(ctx, o.dataDir, o.sources.etcd, startTimeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	conf := registry.Options{
		Quarantine: o.quarantine, AliveTTL: o.aliveTTL, ReclaimAfter: o.reclaimAfter,
		MesosGrace: o.mesosGrace, Trouble: store.Trouble, MemberLeft: store.Left(), MaxTxnOps: store.MaxTxnOps(), Log: log,
	}
	door.Collectors = []prometheus.Collector{etcd.Collector{Store: store}}
	if follower != nil {
		conf.Mesos = follower.View
		door.Collectors = append(door.Collectors, follower)
	}
	reg := registry.New(store.Client, conf)
	begun := make(chan struct{})
	door.Registry, door.Log, door.Begun = reg, log, begun
	srv := server.New(door)
	group, ctx := errgroup.WithContext(ctx)
	// Calls that are under way when stopping still need the index.
	following, unfollow := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return reg.Run(following) })
	group.Go(func() error { return store.Watch(ctx) })
	if follower != nil {
		group.Go(func() error { return follower.Run(ctx) })
	}
	group.Go(func() error {
		if err := seed(ctx, reg, want, log); err != nil || ctx.Err() != nil {
			return err
		}
		if err := takeOver(ctx, reg, imports, log); err != nil {
			return err
		}
		tellClashes(ctx, reg, log)
		close(begun)
		return nil
	})
	group.Go(func() error {
		defer unfollow()
		return srv.Serve(ctx, listeners...)
	})
	for _, l := range listeners {
		log.Info("listening", "address", l.Addr().String())
	}
	return group.Wait()
}

// seed sees to it that etcd holds a network, want if it held none. It tries
// for as long as it takes etcd to serve, and logs why it does not.
func seed(ctx context.Context, reg *registry.Registry, want *network.Network, log *slog.Logger) error {
	said := ""
	for {
		differences, err := seedOnce(ctx, reg, want)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil || errors.Is(err, registry.ErrNotConfigured) {
			for _, d := range differences {
				log.Warn("the configuration differs from what is stored, which counts", "difference", d)
			}
			return err
		}
		if err = cmp.Or(reg.Trouble(), err); err.Error() != said {
			said = err.Error()
			log.Warn("etcd does not serve yet; trying again", "error", said)
		}
		select {
		case <-ctx.Done():
		case <-time.After(startRetry):
		}
	}
}

func seedOnce(ctx context.Context, reg *registry.Registry, want *network.Network) (differences []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, seedTimeout)
	defer cancel()
	if want == nil {
		_, err := reg.Stored(ctx)
		return nil, err
	}
	return reg.Seed(ctx, *want)
}

// tellClashes warns of hosts that route addresses of the network by themselves,
// which the configuration that was just read may have brought about.
func tellClashes(ctx context.Context, reg *registry.Registry, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, clashTimeout)
	defer cancel()
	routes, err := reg.HostRoutes(ctx)
	if err != nil {
		log.Warn("the network is not compared with the hosts' own routes", "error", err)
		return
	}
	for i, r := range routes {
		if i == maxClashes {
			log.Warn("more hosts' routes overlap the network; /v1/agents?status=true has them all", "more", len(routes)-i)
			return
		}
		log.Warn("a host routes addresses of the network by itself, and does not reach them through the overlay",
			"agent", r.Agent, "route", r.Route, "overlaps", strings.Join(r.With, ", "))
	}
}

// takeOver imports what a file holds, if there is one and it was not imported
// before.
func takeOver(ctx context.Context, reg *registry.Registry, file *importFile, log *slog.Logger) error {
	if file == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
	defer cancel()
	result, err := reg.Import(ctx, file.state, file.digest)
	var refused *api.Error
	switch {
	case errors.Is(err, registry.ErrImported):
		log.Info("the state was imported before", "import", file.path)
		return nil
	case errors.As(err, &refused) && refused.Code == api.CodeConflict:
		return usageError{fmt.Errorf("--import %s: %w", file.path, err)}
	case err != nil:
		return fmt.Errorf("--import %s: %w", file.path, err)
	}
	log.Info("state imported", "import", file.path, "imported", result.Imported, "unchanged", result.Unchanged, "empty", result.Empty)
	return nil
}
