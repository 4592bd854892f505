package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/internal/apiclient"
)

// completeTimeout bounds what a shell waits for when somebody presses Tab.
const completeTimeout = 2 * time.Second

// offer asks a coordinator for words. Without an answer there are none: a
// shell's prompt is no place for errors.
func (s *session) offer(ctx context.Context, words func(context.Context, *apiclient.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if ctx == nil {
		ctx = context.Background()
	}
	client, err := s.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	out, err := words(ctx, client)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeOverlay offers the overlays' names as the first argument.
func (s *session) completeOverlay(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.offer(cmd.Context(), func(ctx context.Context, c *apiclient.Client) ([]string, error) {
		all, err := c.Overlays(ctx)
		var names []string
		for _, o := range all {
			names = append(names, o.Name)
		}
		return names, err
	})
}

// completeReservation offers an overlay's name, then its reserved addresses.
func (s *session) completeReservation(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return s.completeOverlay(cmd, args, word)
	}
	return s.offer(cmd.Context(), func(ctx context.Context, c *apiclient.Client) ([]string, error) {
		all, err := c.Reservations(ctx, args[0])
		var addrs []string
		for _, k := range all {
			addrs = append(addrs, k.Address.String())
		}
		return addrs, err
	})
}

// completeAgents offers the addresses of agents that are not named yet.
func (s *session) completeAgents(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return s.offer(cmd.Context(), func(ctx context.Context, c *apiclient.Client) ([]string, error) {
		all, err := c.Agents(ctx)
		var ips []string
		for _, a := range all.Agents {
			if ip := a.IP.String(); !slices.Contains(args, ip) {
				ips = append(ips, ip)
			}
		}
		return ips, err
	})
}

// completeAgent offers one.
func (s *session) completeAgent(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.completeAgents(cmd, args, word)
}

// completes has f complete a flag of cmd, which must be there.
func completes(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(fmt.Sprintf("flag --%s of %s: %v", flag, cmd.Name(), err))
	}
}

// oneOf completes what takes one of a few words.
func oneOf(words ...cobra.Completion) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}
