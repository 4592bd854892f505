package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// maxReasons bounds how many reasons a refusal names.
const maxReasons = 100

// ErrImported says that a file was imported before.
var ErrImported = errors.New("this file was imported before")

// Import takes over all that the agents of a state of DC/OS's hold. Before it
// writes anything it looks for all that is in its way, and refuses with an
// *api.Error that has every reason. Many agents need several transactions: an
// error among them leaves some imported, and importing again goes on.
//
// digest, unless empty, names the file that state is from: one that was
// imported to its end is refused with ErrImported.
func (r *Registry) Import(ctx context.Context, state masterstate.State, digest string) (api.ImportResponse, error) {
	if err := r.waitSynced(ctx); err != nil {
		return api.ImportResponse{}, fmt.Errorf("import: %w", err)
	}
	if err := r.refuseImported(ctx, digest); err != nil {
		return api.ImportResponse{}, err
	}
	// What is judged must not be older than the call.
	rev, err := r.revision(ctx)
	if err != nil {
		return api.ImportResponse{}, fmt.Errorf("import: %w: %w", ErrUnavailable, err)
	}
	if err := r.waitRevision(ctx, rev); err != nil {
		return api.ImportResponse{}, fmt.Errorf("import: %w", err)
	}
	a, err := r.adopt(state)
	if err != nil {
		return api.ImportResponse{}, err
	}
	for rest := a.agents; len(rest) > 0; {
		n, err := r.importSome(ctx, rest)
		if err != nil {
			return api.ImportResponse{}, stopped(len(a.agents)-len(rest), len(a.agents), err)
		}
		rest = rest[n:]
	}
	if digest != "" {
		p := &plan{}
		p.put(keyImport(digest), storedTime{Since: r.opts.Now().UTC()})
		if _, _, err := r.commit(ctx, p); err != nil {
			return api.ImportResponse{}, fmt.Errorf("note the import: %w: %w", ErrUnavailable, err)
		}
	}
	return a.result, nil
}

// stopped says how far an import came.
func stopped(done, all int, err error) error {
	var refused *api.Error
	if errors.As(err, &refused) {
		return fail(refused.Code, "%d of %d agents are imported, then: %s: import again to go on", done, all, refused.Message)
	}
	return fmt.Errorf("import, after %d of %d agents: %w", done, all, err)
}

func (r *Registry) refuseImported(ctx context.Context, digest string) error {
	if digest == "" {
		return nil
	}
	resp, err := r.client.Get(ctx, keyImport(digest))
	if err != nil {
		return fmt.Errorf("import: %w: %w", ErrUnavailable, err)
	}
	if len(resp.Kvs) > 0 {
		return ErrImported
	}
	return nil
}

// adopt judges state as a whole.
func (r *Registry) adopt(state masterstate.State) (*adoption, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idx.baseRev == 0 {
		return nil, errNoNetwork()
	}
	a := adopt(r.idx, state, r.opts.Now().Add(-r.opts.Quarantine))
	if len(a.reasons) == 0 {
		return a, nil
	}
	reasons := a.reasons[:min(len(a.reasons), maxReasons)]
	if more := len(a.reasons) - maxReasons; more > 0 {
		reasons = append(reasons, fmt.Sprintf("and %d more", more))
	}
	return nil, fail(api.CodeConflict, "nothing is imported, for the state does not go with what is here:\n%s", strings.Join(reasons, "\n"))
}

// importSome stores as many of agents as go into one transaction, and says how
// many these are.
func (r *Registry) importSome(ctx context.Context, agents []*lease.Agent) (n int, err error) {
	_, _, err = r.change(ctx, "import", func(x *index) (*plan, error) {
		p := &plan{read: keyNetwork}
		p.unchanged(keyNetwork, x.baseRev)
		n = 0
		// A unit takes two comparisons and an agent one more.
		for len(p.cmps) < batchOps && n < len(agents) {
			a := agents[n]
			n++
			if stored := x.agents[a.IP]; stored != nil {
				if holdsAll(stored.Agent, a) {
					continue
				}
				return nil, fail(api.CodeConflict, "agent %s has claimed something else meanwhile", a.IP)
			}
			p.unchanged(keyAgent(a.IP), 0)
			for _, u := range units(a) {
				if x.pool(u.pool).Used(u.prefix) {
					return nil, fail(api.CodeConflict, "agent %s: %s was leased meanwhile", a.IP, u)
				}
				p.lease(x, u, a.IP)
			}
			p.put(keyAgent(a.IP), a)
		}
		return p, nil
	})
	return n, err
}
