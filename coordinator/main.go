// dcos-overlay-coordinator leases VTEP addresses and subnets to agents and
// tells each of them about all others. Its truth is in etcd: one inside this
// process, or a cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/coordinator/etcd"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/server"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/network/networkfile"
)

const (
	defaultDataDir = "/var/lib/dcos-overlay-coordinator"
	// startTimeout bounds how long etcd may take to start and to answer.
	startTimeout = time.Minute
	exitRuntime  = 1
	exitUsage    = 2
)

// usageError is what the operator must correct before another start.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

type options struct {
	config, dataDir      string
	listen, etcd         []string
	quarantine, aliveTTL time.Duration
	logFormat, logLevel  string
}

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

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:           "dcos-overlay-coordinator",
		Short:         "Lease VTEP addresses and subnets to the agents of overlay networks",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unexpected argument %q: there are only flags", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o, cmd.ErrOrStderr()) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "network configuration: master.json, its overlay object, or config.yaml")
	f.StringVar(&o.dataDir, "data-dir", defaultDataDir, "where the etcd inside this process keeps its data")
	f.StringSliceVar(&o.listen, "listen", []string{fmt.Sprintf(":%d", api.DefaultPort)}, "TCP addresses to answer HTTP on")
	f.StringSliceVar(&o.etcd, "etcd", nil, "URLs of an etcd cluster to use instead of an etcd inside this process")
	f.DurationVar(&o.quarantine, "quarantine", registry.DefaultQuarantine, "how long a released subnet or VTEP address rests before another agent gets it")
	f.DurationVar(&o.aliveTTL, "alive-ttl", registry.DefaultAliveTTL, "how long an agent counts as alive after its last status")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func run(ctx context.Context, o options, stderr io.Writer) (err error) {
	log, err := logger(o, stderr)
	if err != nil {
		return err
	}
	if o.quarantine <= 0 || o.aliveTTL < time.Second {
		return usageError{errors.New("--quarantine must be positive, and --alive-ttl at least 1s")}
	}
	want, err := configuration(o.config)
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, o.listen)
	if err != nil {
		return err
	}
	store, err := etcd.Open(ctx, o.dataDir, o.etcd, startTimeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	reg := registry.New(store.Client, registry.Options{Quarantine: o.quarantine, AliveTTL: o.aliveTTL, Log: log})
	if err := seed(ctx, reg, want, log); err != nil {
		return err
	}
	srv := server.New(server.Options{Registry: reg, Log: log})
	group, ctx := errgroup.WithContext(ctx)
	// Calls that are under way when stopping still need the index.
	following, unfollow := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return reg.Run(following) })
	group.Go(func() error { return store.Watch(ctx) })
	group.Go(func() error {
		defer unfollow()
		return srv.Serve(ctx, listeners...)
	})
	for _, l := range listeners {
		log.Info("listening", "address", l.Addr().String())
	}
	return group.Wait()
}

func logger(o options, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level is %q: it must be debug, info, warn or error", o.logLevel)}
	}
	switch opts := (&slog.HandlerOptions{Level: level}); o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format is %q: it must be text or json", o.logFormat)}
}

// configuration reads the file at path; nil when there is no path.
func configuration(path string) (*network.Network, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("read --config: %w", err)}
	}
	n, err := networkfile.Parse(data)
	if err != nil {
		return nil, usageError{fmt.Errorf("--config %s:\n%w", path, err)}
	}
	return &n, nil
}

func listen(ctx context.Context, addresses []string) ([]net.Listener, error) {
	var out []net.Listener
	for _, a := range addresses {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", a)
		if err != nil {
			return nil, fmt.Errorf("--listen %s: %w", a, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// seed sees to it that etcd holds a network, want if it held none.
func seed(ctx context.Context, reg *registry.Registry, want *network.Network, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if want == nil {
		_, err := reg.Stored(ctx)
		return err
	}
	differences, err := reg.Seed(ctx, *want)
	for _, d := range differences {
		log.Warn("the configuration differs from what is stored, which counts", "difference", d)
	}
	return err
}
