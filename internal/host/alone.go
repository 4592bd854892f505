package host

import (
	"context"

	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/kernel"
)

// alone brings the rules up to the network that a coordinator has just told
// of, where no companion does: an overlay may have been isolated or opened. It
// is for calls that had to ask a coordinator anyway. That it fails is no reason
// to refuse a container, and the next such call tries again.
func (h *Host) alone(ctx context.Context, held *agentstate.Held, overlay string) {
	// Under another main plugin this host is not set up.
	if h.Dir.CompanionRuns() || !h.Dir.Ready(overlay) {
		return
	}
	k, err := kernel.Open()
	if err != nil {
		h.Log.Warn("the firewall is not as the coordinator's network asks for", "error", err)
		return
	}
	defer k.Close()
	held, _, _ = h.feasible(k, held, Knowledge{})
	rules, _ := h.rulesOf(held)
	done := Outcome{Rules: rules}
	if err := applyRules(ctx, &done); err != nil {
		h.Log.Warn("the firewall is not as the coordinator's network asks for", "error", err)
	}
	for _, r := range done.Repairs {
		h.Log.Info("brought up to the coordinator's word", "what", r.What)
	}
}
