package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/ctl/output"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/version"
)

// overview is the cluster at a glance.
type overview struct {
	Coordinators []apiclient.Health `json:"coordinators"`
	Revision     int64              `json:"revision"`
	// StaleSeconds is for how long the coordinator is not known to be in step
	// with etcd; absent when it is.
	StaleSeconds *int64          `json:"stale_seconds,omitempty"`
	VTEPSubnet   netip.Prefix    `json:"vtep_subnet"`
	VTEPSubnet6  netip.Prefix    `json:"vtep_subnet6,omitzero"`
	Agents       agentCounts     `json:"agents"`
	Overlays     []overlayCounts `json:"overlays"`
	Trouble      []trouble       `json:"trouble"`
}

type agentCounts struct {
	Total  int `json:"total"`
	Alive  int `json:"alive"`
	Silent int `json:"silent"`
	Failed int `json:"failed"`
}

type overlayCounts struct {
	api.Overlay
	// Used and Free count addresses on agents that are alive.
	Used int64 `json:"used"`
	Free int64 `json:"free"`
}

// trouble is what an agent has, or that it is silent.
type trouble struct {
	Agent   netip.Addr `json:"agent"`
	Overlay string     `json:"overlay,omitempty"`
	Reason  string     `json:"reason"`
}

// shownTroubles is how many a table has; JSON and YAML have all.
const shownTroubles = 20

func (s *session) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the cluster at a glance: coordinators, agents, overlays, and who is in trouble",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				o := overview{Coordinators: c.Health(ctx), Trouble: []trouble{}}
				agents, err := c.AgentsStatus(ctx)
				if err != nil {
					return fmt.Errorf("read the agents: %w", err)
				}
				overlays, err := c.Overlays(ctx)
				if err != nil {
					return fmt.Errorf("read the overlays: %w", err)
				}
				o.fill(agents, overlays)
				if age, stale := c.Age(); stale {
					seconds := int64(age / time.Second)
					o.StaleSeconds = &seconds
				}
				return s.printer().Print(o, o.rows)
			})
		},
	}
}

func (o *overview) fill(agents api.AgentsResponse, overlays []api.Overlay) {
	o.Revision, o.VTEPSubnet, o.VTEPSubnet6 = agents.Revision, agents.Network.VTEPSubnet, agents.Network.VTEPSubnet6
	o.Agents.Total = len(agents.Agents)
	o.Overlays = make([]overlayCounts, len(overlays))
	at := map[string]int{}
	for i, v := range overlays {
		o.Overlays[i].Overlay = v
		at[v.Name] = i
	}
	for _, a := range agents.Agents {
		status := agents.Status[a.IP]
		if !status.GoneSince.IsZero() {
			o.Trouble = append(o.Trouble, trouble{Agent: a.IP, Reason: gone(status)})
		}
		if !status.Alive {
			o.Agents.Silent++
			o.Trouble = append(o.Trouble, trouble{Agent: a.IP, Reason: silence(status)})
			continue
		}
		o.Agents.Alive++
		failed := false
		for _, held := range a.Overlays {
			if bad(held.State) {
				failed = true
				o.Trouble = append(o.Trouble, trouble{Agent: a.IP, Overlay: held.Name, Reason: reason(held.State)})
			}
			if i, ok := at[held.Name]; ok {
				for _, u := range uses(status.Addresses[held.Name]) {
					o.Overlays[i].Used += u.Used
					o.Overlays[i].Free = saturated(o.Overlays[i].Free, u.Free)
				}
			}
		}
		if failed {
			o.Agents.Failed++
		}
	}
}

func (o *overview) rows(r *output.Rows) {
	r.Head("coordinator", "state", "answers in")
	for _, h := range o.Coordinators {
		state := output.Cell{Text: "ready", Colour: output.Good}
		took := h.Took.Round(100 * time.Microsecond).String()
		if !h.Ready {
			state = output.Cell{Text: h.Reason, Colour: output.Bad}
		}
		if !h.Answered {
			took = ""
		}
		r.Add(h.URL, state, took)
	}
	r.Head("agents", "alive", "silent", "failed", "revision")
	r.Add(o.Agents.Total, o.Agents.Alive, coloured(o.Agents.Silent, output.Odd), coloured(o.Agents.Failed, output.Bad), o.Revision)
	r.Head("overlay", "state", "subnet", "subnet6", "agents", "addresses used", "free")
	for _, v := range o.Overlays {
		r.Add(v.Name, overlayState(v.Overlay), space(v.Subnet, v.Prefix), space(v.Subnet6, v.Prefix6), v.Holders, v.Used, many(v.Free))
	}
	if len(o.Trouble) == 0 {
		return
	}
	r.Head("agent", "overlay", "trouble")
	for i, t := range o.Trouble {
		if i == shownTroubles {
			r.Add("…", "", fmt.Sprintf("and %d more: dcos-overlayctl agents", len(o.Trouble)-i))
			break
		}
		r.Add(t.Agent, t.Overlay, output.Cell{Text: t.Reason, Colour: output.Bad})
	}
}

// coloured is n, in colour unless it is 0.
func coloured(n int, c output.Colour) output.Cell {
	if n == 0 {
		c = output.Plain
	}
	return output.Cell{Text: fmt.Sprint(n), Colour: c}
}

func bad(s lease.State) bool {
	return s.Status == lease.StatusFailed || s.Status == lease.StatusInvalid
}

func reason(s lease.State) string {
	if s.Error == "" {
		return string(s.Status)
	}
	return fmt.Sprintf("%s: %s", s.Status, s.Error)
}

func silence(s api.AgentStatus) string {
	if s.SilentSince.IsZero() {
		return "silent"
	}
	return "silent since " + s.SilentSince.Local().Format(time.DateTime)
}

// gone says since when Mesos has an agent no longer; empty where it has it.
func gone(s api.AgentStatus) string {
	if s.GoneSince.IsZero() {
		return ""
	}
	return "gone from Mesos since " + s.GoneSince.Local().Format(time.DateTime)
}

// uses are the counts that there are.
func uses(a api.Addresses) []api.Usage {
	var out []api.Usage
	for _, u := range []*api.Usage{a.Mesos, a.Docker} {
		if u != nil {
			out = append(out, *u)
		}
	}
	return out
}

// versionInfo says what this program was built of.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

func (s *session) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version this is",
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: version.String(), Go: runtime.Version()}
			return s.printer().Print(v, func(r *output.Rows) { r.Add("dcos-overlayctl", v.Version, v.Go) })
		},
	}
}
