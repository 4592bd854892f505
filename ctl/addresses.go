package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/ctl/output"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
)

// fixedAddresses are an overlay's: those that containers hold, and those that
// are reserved, with who has them.
type fixedAddresses struct {
	Addresses    []api.FixedAddress `json:"addresses"`
	Reservations []api.Reservation  `json:"reservations"`
}

func (s *session) overlayAddressesCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "addresses NAME",
		Short:             "List the fixed addresses of an overlay: who holds them, and for whom they are reserved",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeOverlay,
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				var all fixedAddresses
				var err error
				if all.Addresses, err = c.FixedAddresses(ctx, args[0]); err != nil {
					return fmt.Errorf("read the fixed addresses of overlay %s: %w", args[0], err)
				}
				if all.Reservations, err = c.Reservations(ctx, args[0]); err != nil {
					return fmt.Errorf("read the reservations of overlay %s: %w", args[0], err)
				}
				return s.printer().Print(all, all.rows)
			})
		},
	}
}

// rows has a row for each address, held or reserved or both.
func (all fixedAddresses) rows(r *output.Rows) {
	reserved := map[netip.Addr]string{}
	held := map[netip.Addr]*api.FixedAddress{}
	var order []netip.Addr
	for _, a := range all.Addresses {
		held[a.Address] = &a
		order = append(order, a.Address)
	}
	for _, k := range all.Reservations {
		reserved[k.Address] = k.Label
		order = append(order, k.Address)
	}
	slices.SortFunc(order, netip.Addr.Compare)
	r.Head("address", "reserved for", "agent", "container", "interface", "held since")
	for _, a := range slices.Compact(order) {
		if h := held[a]; h != nil {
			r.Add(a, reserved[a], h.Agent, h.Container, h.Interface, h.Since.Local().Format(time.DateTime))
		} else {
			r.Add(a, reserved[a], "", "", "", "")
		}
	}
}

func (s *session) overlayReserveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reserve NAME ADDRESS LABEL",
		Short: "Keep a fixed address for containers that carry a label",
		Long: "Keep a fixed address for containers that carry a label, role=db or role for any value. Who has the address\n" +
			"keeps it.",
		Example:           "  dcos-overlayctl overlay reserve web 10.20.255.5 role=db",
		Args:              cobra.ExactArgs(3),
		ValidArgsFunction: s.completeOverlay,
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := fixedAddress(args[1])
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				kept, err := c.Reserve(ctx, args[0], addr, args[2])
				if err != nil {
					return fmt.Errorf("reserve address %s of overlay %s: %w", addr, args[0], err)
				}
				all := fixedAddresses{Reservations: []api.Reservation{kept}}
				if kept.Holder != nil {
					all.Addresses = append(all.Addresses, *kept.Holder)
				}
				return s.printer().Print(kept, all.rows)
			})
		},
	}
}

func (s *session) overlayUnreserveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "unreserve NAME ADDRESS",
		Short:             "Let any container have a fixed address that was reserved",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: s.completeReservation,
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := fixedAddress(args[1])
			if err != nil {
				return err
			}
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				what := fmt.Sprintf("the reservation of %s of overlay %s", addr, args[0])
				// The end of one that there is not would pass for success, and
				// hide a mistyped address.
				if _, err := c.Reservation(ctx, args[0], addr); err != nil {
					return fmt.Errorf("end %s: %w", what, err)
				}
				if err := c.Unreserve(ctx, args[0], addr); err != nil {
					return fmt.Errorf("end %s: %w", what, err)
				}
				return s.done(map[string]any{"overlay": args[0], "unreserved": addr}, what+" is ended")
			})
		},
	}
}

func fixedAddress(text string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return ip, usageError{fmt.Errorf("%q is not an address of an overlay, such as 10.20.255.5", text)}
	}
	return ip.Unmap(), nil
}
