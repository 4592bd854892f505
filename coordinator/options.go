package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/coordinator/mesos"
	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/masterstate"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/network/networkfile"
	"github.com/dcos/dcos-overlay/internal/version"
)

const defaultDataDir = "/var/lib/dcos-overlay-coordinator"

// usageError is what the operator must correct before another start.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

type options struct {
	config, dataDir, imports           string
	listen                             []string
	quarantine, aliveTTL, reclaimAfter time.Duration
	mesosGrace                         time.Duration
	logFormat, logLevel                string
	door                               door
	sources                            sources
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:           "dcos-overlay-coordinator",
		Short:         "Lease VTEP addresses and subnets to the agents of overlay networks",
		Version:       version.String(),
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
	o.sources.flags(cmd)
	f.DurationVar(&o.mesosGrace, "mesos-grace", mesos.DefaultGrace, "how long an agent may be gone from Mesos before what it holds is released")
	f.DurationVar(&o.quarantine, "quarantine", registry.DefaultQuarantine, "how long a released subnet or VTEP address rests before another agent gets it")
	f.DurationVar(&o.aliveTTL, "alive-ttl", registry.DefaultAliveTTL, "how long an agent counts as alive after its last status")
	f.DurationVar(&o.reclaimAfter, "reclaim-after", 0, "how long an agent may be silent before what it holds is released; 0 means for ever")
	f.StringVar(&o.imports, "import", "", "a state of DC/OS's (/overlay-master/state), all of whose leases are taken over before the first call is answered")
	o.door.flags(cmd)
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
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

// importFile is a state that was read, and the name of what was read.
type importFile struct {
	path, digest string
	state        masterstate.State
}

// readImport reads the file at path; nil when there is no path.
func readImport(path string) (*importFile, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("read --import: %w", err)}
	}
	state, err := masterstate.Parse(data)
	if err != nil {
		return nil, usageError{fmt.Errorf("--import %s is not a state of DC/OS's: %w", path, err)}
	}
	return &importFile{path, fmt.Sprintf("%x", sha256.Sum256(data)), state}, nil
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
