package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/ctl/output"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/lease"
)

func (s *session) agentsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agents [IP]",
		Short: "List the agents, or show one of them",
		Args:  cobra.MaximumNArgs(1),

		ValidArgsFunction: s.completeAgent,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				if len(args) == 0 {
					return s.agents(ctx, c)
				}
				return s.agent(ctx, c, args[0])
			})
		},
	}
	cmd.AddCommand(s.agentsDeleteCommand(), s.agentsReleaseCommand())
	return cmd
}

func (s *session) agents(ctx context.Context, c *apiclient.Client) error {
	all, err := c.AgentsStatus(ctx)
	if err != nil {
		return fmt.Errorf("read the agents: %w", err)
	}
	out := make([]api.AgentResponse, 0, len(all.Agents))
	for _, a := range all.Agents {
		out = append(out, api.AgentResponse{Agent: a, Status: all.Status[a.IP]})
	}
	return s.printer().Print(out, func(r *output.Rows) {
		r.Head("agent", "state", "vtep", "mac", "overlays", "addresses used")
		for _, a := range out {
			var held []string
			for _, o := range a.Overlays {
				held = append(held, o.Name)
			}
			state := agentState(a)
			if left := gone(a.Status); left != "" {
				state.Text, state.Colour = state.Text+", "+left, output.Bad
			}
			r.Add(a.IP, state, a.VTEP.IP.Addr(), a.VTEP.MAC, strings.Join(held, " "), used(a.Status))
		}
	})
}

// agentState is an agent's in one word or two.
func agentState(a api.AgentResponse) output.Cell {
	if !a.Status.Alive {
		return output.Cell{Text: silence(a.Status), Colour: output.Odd}
	}
	for _, o := range a.Overlays {
		if bad(o.State) {
			return output.Cell{Text: "failed", Colour: output.Bad}
		}
	}
	return output.Cell{Text: "alive", Colour: output.Good}
}

// used is how many addresses of all overlays are in use, of how many.
func used(s api.AgentStatus) string {
	var inUse, free int64
	for _, a := range s.Addresses {
		for _, u := range uses(a) {
			inUse, free = inUse+u.Used, saturated(free, u.Free)
		}
	}
	if len(s.Addresses) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s", inUse, many(saturated(inUse, free)))
}

func (s *session) agent(ctx context.Context, c *apiclient.Client, text string) error {
	ip, err := address(text)
	if err != nil {
		return err
	}
	a, err := c.Agent(ctx, ip)
	if err != nil {
		return fmt.Errorf("read agent %s: %w", ip, err)
	}
	return s.printer().Print(a, func(r *output.Rows) {
		r.Add("agent", a.IP)
		r.Add("state", agentState(a))
		if left := gone(a.Status); left != "" {
			r.Add("Mesos", output.Cell{Text: left, Colour: output.Bad})
		}
		r.Add("id", a.ID)
		r.Add("VTEP", strings.TrimSpace(fmt.Sprintf("%s %s", a.VTEP.IP, prefixes(valid(a.VTEP.IP6)))))
		r.Add("MAC", a.VTEP.MAC)
		r.Add("network_config", configText(a.Config))
		r.Add("host routes", prefixes(a.Status.HostRoutes))
		for _, c := range a.Status.Clashes {
			r.Add("route clash", output.Cell{Text: fmt.Sprintf("%s overlaps %s", c.Route, strings.Join(c.With, ", ")), Colour: output.Bad})
		}
		r.Head("overlay", "subnets", "further subnets, addresses", "status", "mesos", "docker")
		for _, o := range a.Overlays {
			colour := output.Good
			if bad(o.State) {
				colour = output.Bad
			}
			use := a.Status.Addresses[o.Name]
			r.Add(o.Name, prefixes(firstSubnets(o)), prefixes(further(o)), output.Cell{Text: cmp.Or(reason(o.State), "unknown"), Colour: colour}, usage(use.Mesos), usage(use.Docker))
		}
	})
}

// firstSubnets are those that Mesos and Docker share, one a family.
func firstSubnets(o lease.Overlay) []netip.Prefix {
	return slices.Concat(o.Subnets[:min(1, len(o.Subnets))], o.Subnets6[:min(1, len(o.Subnets6))])
}

// further are the subnets beside them, and the fixed addresses.
func further(o lease.Overlay) []netip.Prefix {
	out := o.ExtraSubnets()
	for _, a := range o.Addresses {
		out = append(out, netip.PrefixFrom(a.IP, a.IP.BitLen()))
	}
	return out
}

func valid(p netip.Prefix) []netip.Prefix {
	if !p.IsValid() {
		return nil
	}
	return []netip.Prefix{p}
}

func usage(u *api.Usage) string {
	if u == nil {
		return ""
	}
	return fmt.Sprintf("%d used, %s free", u.Used, many(u.Free))
}

// configText says in what an agent's network_config differs from the default.
func configText(c lease.NetworkConfig) string {
	var out []string
	for _, f := range []struct {
		name string
		on   bool
	}{{"allocate_subnet", c.AllocateSubnet}, {"mesos_bridge", c.MesosBridge}, {"docker_bridge", c.DockerBridge}, {"enable_ipv6", c.EnableIPv6}} {
		if !f.on {
			out = append(out, f.name+" false")
		}
	}
	if c.OverlayMTU != 0 {
		out = append(out, fmt.Sprintf("overlay_mtu %d", c.OverlayMTU))
	}
	return cmp.Or(strings.Join(out, ", "), "default")
}

func address(text string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return ip, usageError{fmt.Errorf("%q is not the address of an agent, such as 172.17.0.2", text)}
	}
	return ip.Unmap(), nil
}

func (s *session) agentsDeleteCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "delete IP...",
		Short: "Forget agents that are gone, and free what they held",
		Long: "Forget agents that are gone, and free what they held.\n\n" +
			"An agent that is alive is deleted with --force only: its companion would claim anew, and get other\n" +
			"subnets. Stop its containers and its companion first.",
		Args: cobra.MinimumNArgs(1),

		ValidArgsFunction: s.completeAgents,
		RunE: func(cmd *cobra.Command, args []string) error {
			var ips []netip.Addr
			for _, text := range args {
				ip, err := address(text)
				if err != nil {
					return err
				}
				ips = append(ips, ip)
			}
			if err := s.confirm(fmt.Sprintf("Delete %s (%s), and free what they hold?", plural(len(ips), "agent"), strings.Join(args, ", "))); err != nil {
				return err
			}
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				if err := c.DeleteAgents(ctx, ips, force); err != nil {
					return fmt.Errorf("delete %s: %w", strings.Join(args, ", "), err)
				}
				return s.done(map[string]any{"deleted": ips}, "deleted "+plural(len(ips), "agent"))
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "agents that are alive, too")
	s.yesFlag(cmd)
	return cmd
}

func (s *session) agentsReleaseCommand() *cobra.Command {
	var overlay string
	cmd := &cobra.Command{
		Use:   "release IP",
		Short: "Give back what an agent holds",
		Long: "Give back what an agent holds, all or of one overlay. A coordinator takes it from that agent itself, or by\n" +
			"an operator's certificate: run it there, after dcos-overlay-companion --teardown.",
		Args: cobra.ExactArgs(1),

		ValidArgsFunction: s.completeAgent,
		RunE: func(cmd *cobra.Command, args []string) error {
			ip, err := address(args[0])
			if err != nil {
				return err
			}
			what := "all that agent " + ip.String() + " holds"
			if overlay != "" {
				what = "what agent " + ip.String() + " holds of overlay " + overlay
			}
			if err := s.confirm("Release " + what + "? Its containers are cut off."); err != nil {
				return err
			}
			return s.askFrom(cmd.Context(), ownAddress(ip), func(ctx context.Context, c *apiclient.Client) error {
				if overlay != "" {
					err = c.ReleaseOverlay(ctx, ip, overlay)
				} else {
					err = c.Release(ctx, ip)
				}
				if err != nil {
					return fmt.Errorf("release %s: %w", what, err)
				}
				return s.done(map[string]any{"released": ip, "overlay": overlay}, "released "+what)
			})
		},
	}
	cmd.Flags().StringVar(&overlay, "overlay", "", "only what it holds of this overlay")
	completes(cmd, "overlay", func(cmd *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return s.completeOverlay(cmd, nil, word)
	})
	s.yesFlag(cmd)
	return cmd
}

// ownAddress is ip if this machine has it, else the zero Addr.
func ownAddress(ip netip.Addr) netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{} // the coordinator says if it matters
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip.AsSlice()) {
			return ip
		}
	}
	return netip.Addr{}
}

func (s *session) yesFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&s.yes, "yes", "y", false, "do not ask; needed where there is no terminal")
}

// done says what was done.
func (s *session) done(v any, text string) error {
	return s.printer().Print(v, func(r *output.Rows) { r.Add(text) })
}
