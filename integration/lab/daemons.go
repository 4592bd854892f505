package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/api"
)

// readyTimeout bounds a daemon's start: a coordinator's etcd syncs its disk,
// and the machine may be busy with other tests.
const readyTimeout = time.Minute

// CoordinatorOptions are for StartCoordinator.
type CoordinatorOptions struct {
	// Config is the network configuration; nil means that no --config is
	// given, for a coordinator that has it already.
	Config []byte
	// Args are more flags.
	Args []string
}

// coordinatorConfig is where StartCoordinator writes the configuration.
const coordinatorConfig = "/etc/dcos-overlay/master.json"

// StartCoordinator starts a coordinator on the host and waits until it is
// ready.
func (h *Host) StartCoordinator(ctx context.Context, opts CoordinatorOptions) (*Process, error) {
	args := []string{"dcos-overlay-coordinator"}
	if opts.Config != nil {
		if err := h.WriteFile(ctx, coordinatorConfig, opts.Config); err != nil {
			return nil, err
		}
		args = append(args, "--config", coordinatorConfig)
	}
	p, err := h.Start(ctx, "coordinator", append(args, opts.Args...)...)
	if err != nil {
		return nil, err
	}
	return p, h.waitHTTP(ctx, p, h.CoordinatorURL()+"/readyz")
}

// CoordinatorURL is where a coordinator on this host is asked.
func (h *Host) CoordinatorURL() string {
	return "http://" + net.JoinHostPort(h.Addr.String(), strconv.Itoa(api.DefaultPort))
}

// companionURL is where the companion answers, on each host for itself.
const companionURL = "http://127.0.0.1:64002"

// StartCompanion writes the agent's configuration, starts the companion with
// it, and waits until it is healthy.
func (h *Host) StartCompanion(ctx context.Context, agentJSON []byte, args ...string) (*Process, error) {
	if err := h.WriteFile(ctx, agentconf.DefaultPath, agentJSON); err != nil {
		return nil, err
	}
	args = append([]string{"dcos-overlay-companion", "--agent-config", agentconf.DefaultPath}, args...)
	p, err := h.Start(ctx, "companion", args...)
	if err != nil {
		return nil, err
	}
	return p, h.waitHTTP(ctx, p, companionURL+"/healthz")
}

// waitHTTP waits until a process answers 200 at url.
func (h *Host) waitHTTP(ctx context.Context, p *Process, url string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return p.waitUntil(ctx, p.Name+" to answer at "+url, func(ctx context.Context) error {
		status, body, err := h.HTTP(ctx, http.MethodGet, url, nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("it answers %d: %s", status, tail(string(body)))
		}
		return err
	})
}
