package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/ctl/doctor"
	"github.com/dcos/dcos-overlay/ctl/output"
	"github.com/dcos/dcos-overlay/ctl/ping"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/docker"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	// companionHealth is where a companion tells of itself, unless its
	// --listen says otherwise.
	companionHealth = "127.0.0.1:64002"
	// lookTimeout bounds each single thing that doctor waits for.
	lookTimeout = 3 * time.Second
	// doctorPings is how many VTEPs doctor asks; ping asks all.
	doctorPings = 3
)

// thisHost is the host that the program runs on, as its companion sees it.
func (s *session) thisHost() (*host.Host, error) {
	conf, err := s.config()
	if err != nil {
		return nil, err
	}
	return host.New(conf, slog.New(slog.NewTextHandler(io.Discard, nil))), nil
}

func (s *session) doctorCommand() *cobra.Command {
	var dockerHost, companion string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong with this host's part of the overlays (root)",
		Long: "Compare this host with what the coordinator, the lease and the agent's file ask for, change nothing,\n" +
			"and say of each thing whether it is right and, if not, what to do. It exits with 1 if anything fails.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := s.thisHost()
			if err != nil {
				return err
			}
			engine, err := docker.Open(dockerHost)
			if err != nil {
				return usageError{fmt.Errorf("--docker-host: %w", err)}
			}
			// Files that no call can be made with are a finding like others.
			var coordinator doctor.Coordinator
			if client, err := connect(h.Conf, netip.Addr{}); err != nil {
				coordinator = doctor.Unasked{URLs: h.Conf.Master, Cause: err}
			} else {
				defer client.Close()
				coordinator = client
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), s.timeout)
			defer cancel()
			lines := []doctor.Line{}
			var printing error
			d := doctor.Doctor{
				Host: h, Docker: engine, Coordinator: coordinator, Companion: "http://" + companion + "/healthz",
				Pings: doctorPings, Timeout: lookTimeout,
				Tell: func(l doctor.Line) {
					lines = append(lines, l)
					if output.Format(s.format) == output.Table {
						printing = errors.Join(printing, s.printer().Print(nil, func(r *output.Rows) { doctorRow(r, l) }))
					}
				},
			}
			d.Run(ctx)
			if output.Format(s.format) != output.Table {
				printing = s.printer().Print(lines, nil)
			}
			if printing != nil {
				return printing
			}
			if slices.ContainsFunc(lines, func(l doctor.Line) bool { return l.Level == doctor.Fail }) {
				return errFound
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dockerHost, "docker-host", "", "the Docker Engine (default $DOCKER_HOST, or unix:///var/run/docker.sock)")
	f.StringVar(&companion, "companion", companionHealth, "where this host's companion listens")
	return cmd
}

func doctorRow(r *output.Rows, l doctor.Line) {
	colour := map[doctor.Level]output.Colour{doctor.OK: output.Good, doctor.Warn: output.Odd, doctor.Fail: output.Bad}[l.Level]
	r.Add(output.Cell{Text: fmt.Sprintf("%-4s", l.Level), Colour: colour}, l.Name+": "+l.Text)
	if l.Remedy != "" {
		r.Add("    ", "-> "+l.Remedy)
	}
}

func (s *session) pingCommand() *cobra.Command {
	var o ping.Options
	var family string
	cmd := &cobra.Command{
		Use:   "ping [IP...]",
		Short: "Ask other agents' VTEPs through the overlay, with packets of full size (root)",
		Long: "Ask the VTEPs of all other agents, or of those named, whether they answer, and whether packets of full\n" +
			"size get there and back. Where they do not it looks for the size that does. It exits with 1 if one does\nnot answer or has too small an MTU.",
		RunE: func(cmd *cobra.Command, args []string) error { return s.ping(cmd.Context(), args, family, o) },
		Args: cobra.ArbitraryArgs,

		ValidArgsFunction: s.completeAgents,
	}
	f := cmd.Flags()
	f.StringVar(&family, "family", "both", "VTEP addresses to ask: 4, 6 or both")
	completes(cmd, "family", oneOf("4", "6", "both"))
	f.IntVar(&o.Count, "count", 3, "packets to each address")
	f.IntVar(&o.Size, "size", -1, "size of a full packet with its IP header, in bytes; 0 for small packets only (default the MTU of this host's VTEP)")
	f.DurationVar(&o.Timeout, "wait", time.Second, "how long to wait for one answer")
	f.IntVar(&o.Parallel, "parallel", 64, "addresses to ask at a time")
	return cmd
}

// pinged is what ping found.
type pinged struct {
	Size    int           `json:"size"`
	Results []ping.Result `json:"results"`
}

func (s *session) ping(ctx context.Context, args []string, family string, o ping.Options) error {
	if o.Count < 1 || o.Timeout <= 0 || o.Parallel < 1 {
		return usageError{errors.New("--count, --wait and --parallel must be more than 0")}
	}
	if !slices.Contains([]string{"4", "6", "both"}, family) {
		return usageError{fmt.Errorf("--family is %q: it must be 4, 6 or both", family)}
	}
	h, err := s.thisHost()
	if err != nil {
		return err
	}
	held, err := h.Dir.Held()
	if err != nil {
		return usageError{err}
	}
	if held == nil {
		return usageError{fmt.Errorf("this host has no lease in %s, and so no VTEP to ask from: see dcos-overlayctl doctor", h.Dir.State)}
	}
	if o.Size < 0 {
		if o.Size, err = vtepMTU(); err != nil {
			return err
		}
	}
	var agents []lease.Agent
	err = s.ask(ctx, func(ctx context.Context, c *apiclient.Client) error {
		all, err := c.Agents(ctx)
		agents = all.Agents
		return err
	})
	if errors.Is(err, apiclient.ErrUnreachable) {
		fmt.Fprintf(s.env.stderr, "dcos-overlayctl: %v; asking the agents that were known before\n", err)
		agents, err = h.Dir.Peers()
	}
	if err != nil {
		return fmt.Errorf("read the agents: %w", err)
	}
	targets, err := pingTargets(agents, held, args, family)
	if err != nil {
		return err
	}
	bar := s.progress("asking", len(targets))
	out := pinged{Size: o.Size}
	out.Results, err = ping.Run(ctx, targets, o, func(ping.Result) { bar.step() })
	bar.end()
	if err != nil {
		return err
	}
	return s.pinged(out)
}

func vtepMTU() (int, error) {
	k, err := kernel.Open()
	if err != nil {
		return 0, err
	}
	defer k.Close()
	mtu, err := k.MTU(network.VTEPName)
	if err != nil {
		return 0, fmt.Errorf("this host has no VTEP to ask from: %w: see dcos-overlayctl doctor", err)
	}
	return mtu, nil
}

// pingTargets are the addresses to ask: of the agents that args name, or of
// all but this one.
func pingTargets(agents []lease.Agent, held *agentstate.Held, args []string, family string) ([]ping.Target, error) {
	var named []netip.Addr
	for _, text := range args {
		ip, err := address(text)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(agents, func(a lease.Agent) bool { return a.IP == ip }) {
			return nil, usageError{fmt.Errorf("there is no agent %s: see dcos-overlayctl agents", ip)}
		}
		named = append(named, ip)
	}
	var out []ping.Target
	for _, a := range agents {
		if len(named) > 0 && !slices.Contains(named, a.IP) || len(named) == 0 && a.IP == held.Agent.IP {
			continue
		}
		if family != "6" && a.VTEP.IP.IsValid() && held.Agent.VTEP.IP.IsValid() {
			out = append(out, ping.Target{Agent: a.IP, VTEP: a.VTEP.IP.Addr()})
		}
		if family != "4" && a.VTEP.IP6.IsValid() && held.Agent.VTEP.IP6.IsValid() {
			out = append(out, ping.Target{Agent: a.IP, VTEP: a.VTEP.IP6.Addr()})
		}
	}
	return out, nil
}

// pinged prints the answers, and fails where one is wrong.
func (s *session) pinged(out pinged) error {
	wrong := 0
	for _, r := range out.Results {
		if !r.OK() {
			wrong++
		}
	}
	err := s.printer().Print(out, func(r *output.Rows) {
		r.Head("agent", "vtep", "answers", "time", "mtu", "")
		for _, p := range out.Results {
			verdict := output.Cell{Text: "ok", Colour: output.Good}
			if !p.OK() {
				verdict = output.Cell{Text: p.Problem, Colour: output.Bad}
			}
			took, mtu := "", ""
			if p.Received > 0 {
				took, mtu = p.RTT.Round(10*time.Microsecond).String(), fmt.Sprint(p.MTU)
			}
			r.Add(p.Agent, p.VTEP, fmt.Sprintf("%d of %d", p.Received, p.Sent), took, mtu, verdict)
		}
		r.Head("addresses", "right", "wrong", "packets")
		r.Add(len(out.Results), len(out.Results)-wrong, coloured(wrong, output.Bad), fmt.Sprintf("up to %d bytes", out.Size))
	})
	if err == nil && wrong > 0 {
		err = errFound
	}
	return err
}
