package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/ctl/output"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/network"
)

func (s *session) overlaysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "overlays",
		Short: "List the overlays",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				all, err := c.Overlays(ctx)
				if err != nil {
					return fmt.Errorf("read the overlays: %w", err)
				}
				return s.printer().Print(all, func(r *output.Rows) { overlayRows(r, all...) })
			})
		},
	}
}

func overlayRows(r *output.Rows, all ...api.Overlay) {
	r.Head("overlay", "state", "subnet", "subnet6", "agents", "subnets leased", "free", "most an agent")
	for _, o := range all {
		r.Add(o.Name, overlayState(o), space(o.Subnet, o.Prefix), space(o.Subnet6, o.Prefix6), o.Holders,
			both(o, func(u *api.Units) string { return fmt.Sprint(u.Leased) }),
			both(o, func(u *api.Units) string { return many(int64(min(u.Free, endless))) }), o.SubnetLimit())
	}
}

// both are a figure for each family that o has, IPv4 before IPv6.
func both(o api.Overlay, figure func(*api.Units) string) string {
	var out []string
	for _, u := range []*api.Units{o.Subnets, o.Subnets6} {
		if u != nil {
			out = append(out, figure(u))
		}
	}
	return strings.Join(out, ", ")
}

func (s *session) overlayCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "overlay", Short: "Create, enable, disable or delete an overlay"}
	cmd.AddCommand(
		s.overlayCreateCommand(),
		s.overlaySwitchCommand("enable", "Lease subnets of an overlay again", true),
		s.overlaySwitchCommand("disable", "Lease no more subnets of an overlay; what is leased stays", false),
		s.overlayDeleteCommand(),
	)
	return cmd
}

func (s *session) overlayCreateCommand() *cobra.Command {
	var subnet, subnet6 string
	var prefix, prefix6 int
	var disabled, isolated bool
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create an overlay",
		Example: "  dcos-overlayctl overlay create web --subnet 10.20.0.0/16 --prefix 26",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := network.Overlay{Name: args[0], Prefix: prefix, Prefix6: prefix6, Isolated: isolated}
			if disabled {
				o.Enabled = new(bool)
			}
			if err := errors.Join(setPrefix(&o.Subnet, "--subnet", subnet), setPrefix(&o.Subnet6, "--subnet6", subnet6)); err != nil {
				return usageError{err}
			}
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				_, err := c.OverlayStatus(ctx, o.Name)
				switch {
				case err == nil:
					return usageError{fmt.Errorf("overlay %s is there already: see dcos-overlayctl overlays", o.Name)}
				case !apiclient.IsCode(err, api.CodeNotFound):
					return fmt.Errorf("look for overlay %s: %w", o.Name, err)
				}
				return s.put(ctx, c, o)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&subnet, "subnet", "", "its IPv4 space, such as 10.20.0.0/16")
	f.IntVar(&prefix, "prefix", 0, "length of one agent's IPv4 subnet, such as 26")
	f.StringVar(&subnet6, "subnet6", "", "its IPv6 space, such as fd01:c::/64")
	f.IntVar(&prefix6, "prefix6", 0, "length of one agent's IPv6 subnet, such as 80")
	f.BoolVar(&disabled, "disabled", false, "lease nothing from it yet")
	f.BoolVar(&isolated, "isolated", false, "keep its containers and those of other overlays apart")
	return cmd
}

func setPrefix(p *netip.Prefix, flag, text string) (err error) {
	if text == "" {
		return nil
	}
	if *p, err = netip.ParsePrefix(text); err != nil {
		return fmt.Errorf("%s: %q is not an address range such as 10.20.0.0/16", flag, text)
	}
	return nil
}

func (s *session) put(ctx context.Context, c *apiclient.Client, o network.Overlay) error {
	now, err := c.PutOverlay(ctx, o)
	if err != nil {
		return fmt.Errorf("write overlay %s: %w", o.Name, err)
	}
	return s.printer().Print(now, func(r *output.Rows) { overlayRows(r, now) })
}

func (s *session) overlaySwitchCommand(verb, short string, on bool) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				now, err := c.OverlayStatus(ctx, args[0])
				if err != nil {
					return fmt.Errorf("%s overlay %s: %w", verb, args[0], err)
				}
				o := now.Overlay
				o.Enabled = nil
				if !on {
					o.Enabled = new(bool)
				}
				return s.put(ctx, c, o)
			})
		},
	}
}

func (s *session) overlayDeleteCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete an overlay, once no agent holds of it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var now api.Overlay
			err := s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) (err error) {
				now, err = c.OverlayStatus(ctx, args[0])
				return err
			})
			if err != nil {
				return fmt.Errorf("delete overlay %s: %w", args[0], err)
			}
			question := fmt.Sprintf("Delete overlay %s, of which %s hold subnets?", now.Name, plural(now.Holders, "agent"))
			if force {
				question = fmt.Sprintf("Delete overlay %s, and cut off its containers on %s?", now.Name, plural(now.Holders, "agent"))
			}
			if err := s.confirm(question); err != nil {
				return err
			}
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				left, err := c.DeleteOverlay(ctx, now.Name, force)
				if err != nil {
					return fmt.Errorf("delete overlay %s: %w", now.Name, err)
				}
				if left == nil {
					return s.done(map[string]any{"deleted": now.Name}, "overlay "+now.Name+" is deleted")
				}
				return s.printer().Print(left, func(r *output.Rows) { overlayRows(r, *left) })
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "take it from the agents that hold of it")
	s.yesFlag(cmd)
	return cmd
}
