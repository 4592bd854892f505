// Command dcos-overlay-companion keeps one host part of the overlays: peers,
// devices, masquerade, Docker networks, CNI configurations, reports.
package main

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/dcos/dcos-overlay/companion/docker"
	"github.com/dcos/dcos-overlay/companion/peers"
	"github.com/dcos/dcos-overlay/companion/status"
	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/host"
)

type options struct {
	agentConfig, listen, dockerHost, logFormat string
	interval                                   time.Duration
	logLevel                                   slog.Level
}

func main() {
	var o options
	cmd := &cobra.Command{
		Use:           "dcos-overlay-companion",
		Short:         "Keep this host part of the overlay networks",
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
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := cmd.ExecuteContext(ctx); err != nil {
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
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("serve this host's status: %w", err)
	}
	follower := peers.New(log)
	a := &agent.Agent{Host: h, Follower: follower, Docker: engine, Interval: o.interval, Log: log}
	server := &http.Server{Handler: status.Handler(a, 6*o.interval+time.Minute), ReadHeaderTimeout: 5 * time.Second}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		follower.Run(ctx, func() (peers.Stream, error) {
			ip, err := conf.AgentIP()
			if err != nil {
				return nil, err
			}
			return h.Client(ip)
		})
		return nil
	})
	group.Go(func() error {
		var events <-chan struct{}
		if conf.Network.DockerBridge {
			events = engine.Events(ctx)
		}
		a.Run(ctx, events)
		return nil
	})
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
		return server.Close()
	})
	log.Info("companion is up", "config", conf.Path, "coordinators", conf.Master, "status", listener.Addr())
	return group.Wait()
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
