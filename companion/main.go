// Command dcos-overlay-companion keeps one host part of the overlays: peers,
// devices, masquerade, Docker networks, CNI configurations, reports.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dcos/dcos-overlay/companion/agent"
	"github.com/dcos/dcos-overlay/companion/leaks"
	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/companion/status"
	"github.com/dcos/dcos-overlay/companion/systemd"
	"github.com/dcos/dcos-overlay/companion/teardown"
	"github.com/dcos/dcos-overlay/companion/watch"
	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/version"
)

type options struct {
	agentConfig, listen, dockerHost, logFormat string
	interval, leakGrace, extraHold             time.Duration
	logLevel                                   slog.Level
	teardown, release                          bool
}

func main() {
	var o options
	cmd := &cobra.Command{
		Use:           "dcos-overlay-companion",
		Short:         "Keep this host part of the overlay networks",
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.agentConfig, "agent-config", "", "the agent's file (default "+agentconf.DefaultPath+", which may be absent)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:64002", "where to serve this host's status")
	f.StringVar(&o.dockerHost, "docker-host", "", "the Docker Engine (default $DOCKER_HOST, or unix:///var/run/docker.sock)")
	f.DurationVar(&o.interval, "interval", 10*time.Second, "time between two comparisons when nothing happens, and between two heartbeats")
	f.DurationVar(&o.leakGrace, "leak-grace", leaks.DefaultGrace, "how long a container must have been gone without DEL before its address is freed")
	f.DurationVar(&o.extraHold, "extra-subnet-hold", agent.DefaultExtraHold, "how long a further subnet of an overlay must have been empty before it is given back")
	f.BoolVar(&o.teardown, "teardown", false, "remove all that is ours from this host, and exit; the lease stays")
	f.BoolVar(&o.release, "release", false, "with --teardown: give the lease back, too")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := cmd.ExecuteContext(ctx); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: run it as root", err)
		}
		fmt.Fprintln(os.Stderr, "dcos-overlay-companion:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	log, err := logger(o)
	if err != nil {
		return err
	}
	if o.interval < time.Second {
		return fmt.Errorf("--interval %s is too short: give a second or more", o.interval)
	}
	if o.leakGrace <= 0 {
		return fmt.Errorf("--leak-grace %s is no time: give a second or more", o.leakGrace)
	}
	if o.extraHold <= 0 {
		return fmt.Errorf("--extra-subnet-hold %s is no time: give a second or more", o.extraHold)
	}
	if o.release && !o.teardown {
		return errors.New("--release goes with --teardown: a host that goes on needs its lease")
	}
	conf, err := agentconf.Load(o.agentConfig)
	if err != nil {
		return err
	}
	h := host.New(conf, log)
	unlock, err := h.Dir.LockCompanion()
	if err != nil {
		return err
	}
	defer unlock()
	engine, err := docker.Open(o.dockerHost)
	if err != nil {
		return err
	}
	if o.teardown {
		t := teardown.Teardown{Host: h, Docker: engine, Log: log}
		return t.Run(ctx, o.release)
	}
	return serve(ctx, o, h, engine, log)
}

// serve keeps the host until ctx ends.
func serve(ctx context.Context, o options, h *host.Host, engine *docker.Engine, log *slog.Logger) error {
	manager, err := systemd.FromEnv(os.Getenv)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("serve this host's status: %w: end what has the port (ss -ltnp), or give --listen another", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	follower, changes := peers.New(log), watch.New(log)
	a := &agent.Agent{
		Host: h, Follower: follower, Docker: engine, Watch: changes, Interval: o.interval, ExtraHold: o.extraHold, Log: log,
		Alive: alive(manager, log),
	}
	if h.Conf.Network.DockerBridge {
		a.Events = engine.Events(ctx)
	}
	cleaner := leaks.New(leaks.Options{Dir: h.Conf.DataDir(), Grace: o.leakGrace, Log: log})
	server := &http.Server{Handler: status.Handler(a, cleaner, 6*o.interval+time.Minute), ReadHeaderTimeout: 5 * time.Second}
	for _, f := range []func(){
		func() { changes.Run(ctx) },
		func() {
			follower.Run(ctx, func() (peers.Stream, error) {
				ip, err := h.Conf.AgentIP()
				if err != nil {
					return nil, err
				}
				return apiclient.ForAgent(h.Conf, ip)
			})
		},
		func() { a.Run(ctx) },
		func() { cleaner.Run(ctx, o.interval) },
	} {
		group.Go(func() error { f(); return nil })
	}
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve this host's status: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		// What is set up stays: containers outlive their companion.
		log.Info("stopping; the data path stays")
		return errors.Join(manager.Stopping(), server.Close())
	})
	log.Info("companion is up", "config", h.Conf.Path, "coordinators", h.Conf.Master, "status", listener.Addr())
	return group.Wait()
}

// alive tells the service manager of the first pass, and then that the loop
// goes on.
func alive(manager systemd.Manager, log *slog.Logger) func() {
	first := true
	return func() {
		tell := manager.Alive
		if first {
			first = false
			tell = manager.Ready
		}
		if err := tell(); err != nil {
			log.Warn("the service manager is not told", "error", err)
		}
	}
}

func logger(o options) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: o.logLevel}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", o.logFormat)
}
