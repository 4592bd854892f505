package main

import (
	"cmp"
	"context"
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
		Use:               "overlays [NAME]",
		Short:             "List the overlays, or show one of them",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: s.completeOverlay,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				if len(args) > 0 {
					one, err := c.OverlayStatus(ctx, args[0])
					if err != nil {
						return fmt.Errorf("read overlay %s: %w", args[0], err)
					}
					return s.overlay(one)
				}
				all, err := c.Overlays(ctx)
				if err != nil {
					return fmt.Errorf("read the overlays: %w", err)
				}
				return s.printer().Print(all, func(r *output.Rows) { overlayRows(r, all...) })
			})
		},
	}
}

// overlay prints all that is known of one.
func (s *session) overlay(o api.Overlay) error {
	return s.printer().Print(o, func(r *output.Rows) {
		r.Add("overlay", o.Name)
		r.Add("state", overlayState(o))
		for _, f := range []struct {
			family         string
			all            netip.Prefix
			prefix, docker int
			fixed          netip.Prefix
			units          *api.Units
		}{
			{"IPv4", o.Subnet, o.Prefix, o.DockerPrefix, o.StaticSubnet, o.Subnets},
			{"IPv6", o.Subnet6, o.Prefix6, o.DockerPrefix6, o.StaticSubnet6, o.Subnets6},
		} {
			if !f.all.IsValid() {
				continue
			}
			r.Add(f.family, space(f.all, f.prefix))
			r.Add("  Docker's part", fmt.Sprintf("/%d of each", cmp.Or(f.docker, f.prefix+1)))
			if u := f.units; u != nil {
				r.Add("  subnets", fmt.Sprintf("%d leased, %d resting, %s free", u.Leased, u.Resting, many(int64(min(u.Free, endless)))))
			}
			if f.fixed.IsValid() {
				r.Add("  fixed addresses", f.fixed)
			}
		}
		if len(o.Statics()) > 0 {
			r.Add("takeover after", o.Takeover())
		}
		r.Add("most an agent", plural(o.SubnetLimit(), "subnet"))
		r.Add("held by", plural(o.Holders, "agent"))
	})
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
	cmd := &cobra.Command{Use: "overlay", Short: "Create, change, enable, disable or delete an overlay; its fixed addresses"}
	cmd.AddCommand(
		s.overlayCreateCommand(),
		s.overlaySetCommand(),
		s.overlaySwitchCommand("enable", "Lease subnets of an overlay again", true),
		s.overlaySwitchCommand("disable", "Lease no more subnets of an overlay; what is leased stays", false),
		s.overlayDeleteCommand(),
		s.overlayAddressesCommand(),
		s.overlayReserveCommand(),
		s.overlayUnreserveCommand(),
	)
	return cmd
}

func (s *session) overlayCreateCommand() *cobra.Command {
	var fields *overlayFields
	var disabled bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create an overlay",
		Example: "  dcos-overlayctl overlay create web --subnet 10.20.0.0/16 --prefix 26\n" +
			"  dcos-overlayctl overlay create db --subnet 10.21.0.0/16 --prefix 26 --static-subnet 10.21.255.0/24 --isolated",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := network.Overlay{Name: args[0]}
			if disabled {
				o.Enabled = new(bool)
			}
			if err := fields.apply(&o); err != nil {
				return err
			}
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				_, err := c.OverlayStatus(ctx, o.Name)
				switch {
				case err == nil:
					return usageError{fmt.Errorf("overlay %s is there already: see dcos-overlayctl overlays, and overlay set", o.Name)}
				case !apiclient.IsCode(err, api.CodeNotFound):
					return fmt.Errorf("look for overlay %s: %w", o.Name, err)
				}
				return s.put(ctx, c, o)
			})
		},
	}
	fields = newOverlayFields(cmd)
	cmd.Flags().BoolVar(&disabled, "disabled", false, "lease nothing from it yet")
	return cmd
}

func (s *session) overlaySetCommand() *cobra.Command {
	var fields *overlayFields
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change an overlay: what is given is set, all else stays",
		Long: "Change an overlay: what is given is set, all else stays. An empty range takes away the one that there is.\n" +
			"The coordinator refuses what agents that hold of it could not follow: see the reference, \"Overlays at runtime\".",
		Example: "  dcos-overlayctl overlay set web --isolated\n" +
			"  dcos-overlayctl overlay set web --isolated=false --max-subnets 4\n" +
			"  dcos-overlayctl overlay set web --static-subnet 10.20.255.0/24 --static-takeover 90s",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeOverlay,
		RunE: func(cmd *cobra.Command, args []string) error {
			var none network.Overlay
			if err := fields.apply(&none); err != nil {
				return err
			}
			if !fields.given() {
				return usageError{fmt.Errorf("set overlay %s: say what to change (see %s --help)", args[0], cmd.CommandPath())}
			}
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				now, err := c.OverlayStatus(ctx, args[0])
				if err != nil {
					return fmt.Errorf("set overlay %s: %w", args[0], err)
				}
				if err := notDeleting(now); err != nil {
					return err
				}
				o := now.Overlay
				if err := fields.apply(&o); err != nil {
					return err
				}
				return s.put(ctx, c, o)
			})
		},
	}
	fields = newOverlayFields(cmd)
	return cmd
}

func (s *session) put(ctx context.Context, c *apiclient.Client, o network.Overlay) error {
	now, err := c.PutOverlay(ctx, o)
	if err != nil {
		return fmt.Errorf("write overlay %s: %w", o.Name, err)
	}
	return s.overlay(now)
}

// notDeleting refuses what would end a delete that is under way.
func notDeleting(o api.Overlay) error {
	if o.Deleting {
		return usageError{fmt.Errorf("overlay %s is being deleted: dcos-overlayctl overlay enable %[1]s ends that, and keeps it", o.Name)}
	}
	return nil
}

func (s *session) overlaySwitchCommand(verb, short string, on bool) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " NAME",
		Short:             short,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeOverlay,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				now, err := c.OverlayStatus(ctx, args[0])
				if err != nil {
					return fmt.Errorf("%s overlay %s: %w", verb, args[0], err)
				}
				o := now.Overlay
				o.Enabled = nil
				if !on {
					if err := notDeleting(now); err != nil {
						return err
					}
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

		ValidArgsFunction: s.completeOverlay,
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
