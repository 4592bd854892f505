package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// Pauses before a stream that broke is opened again; they double.
const (
	watchRetry    = 200 * time.Millisecond
	watchRetryMax = 5 * time.Second
)

func (s *session) watchCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print each change of an agent or of the network as it happens",
		Long:  "Print each change of an agent or of the network as it happens, until it is interrupted. --timeout does\nnot apply.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			defer client.Close()
			w := watcher{session: s, all: all}
			return w.run(cmd.Context(), client)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "begin with all that there is")
	return cmd
}

// watcher prints the stream's events.
type watcher struct {
	*session
	// all prints the first snapshot, too.
	all bool
	// synced says that the first picture is complete.
	synced bool
	since  int64
	epoch  string
}

// run follows the stream until ctx ends. Before the first event a coordinator
// that does not answer is an error; later it may come back.
func (w *watcher) run(ctx context.Context, client *apiclient.Client) error {
	pause := watchRetry
	for {
		began := time.Now()
		var printing error
		err := client.Watch(ctx, w.since, w.epoch, func(e api.Event) error {
			printing = w.event(e)
			return printing
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case printing != nil:
			return printing
		case !w.synced && errors.Is(err, apiclient.ErrUnreachable):
			return fmt.Errorf("follow the stream of agents: %w", err)
		}
		if time.Since(began) > watchRetryMax {
			pause = watchRetry
		}
		fmt.Fprintf(w.env.stderr, "dcos-overlayctl: %v; trying again\n", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, watchRetryMax)
	}
}

func (w *watcher) event(e api.Event) error {
	first := !w.synced
	switch e.Type {
	case api.EventPing:
		return nil
	case api.EventSynced:
		w.synced, w.since, w.epoch = true, e.Revision, e.Epoch
	default:
		// Events of one transaction but the last bear the revision before it.
		w.since = max(w.since, e.Revision)
	}
	if first && !w.all && e.Type != api.EventSynced {
		return nil
	}
	return w.printer().Line(e, time.Now().Format(time.TimeOnly)+" "+eventText(e))
}

// eventText is one event in a line.
func eventText(e api.Event) string {
	switch {
	case e.Type == api.EventSet && e.Agent != nil:
		return fmt.Sprintf("set %s %s", e.Agent.IP, agentText(e.Agent))
	case e.Type == api.EventDelete:
		return fmt.Sprintf("delete %s", e.IP)
	case e.Type == api.EventNetwork && e.Network != nil:
		var names []string
		for _, o := range e.Network.Overlays {
			name := o.Name
			if !o.IsEnabled() {
				name += " (disabled)"
			}
			names = append(names, name)
		}
		return "network overlays " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s at revision %d", e.Type, e.Revision)
}

func agentText(a *lease.Agent) string {
	out := []string{fmt.Sprintf("vtep %s", vtepAddr(a.VTEP.IP))}
	for _, o := range a.Overlays {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", o.Name, prefixes(o.Destinations()), reason(o.State))))
	}
	return strings.Join(out, ", ")
}

func vtepAddr(p netip.Prefix) string {
	if !p.IsValid() {
		return "none"
	}
	return p.Addr().String()
}
