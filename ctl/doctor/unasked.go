package doctor

import (
	"context"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
)

// Unasked are coordinators that this host can't call, for Cause: its TLS files
// can't be used. The rest of the host is looked at all the same.
type Unasked struct {
	URLs  []string
	Cause error
}

// Health says of each coordinator why it is not asked.
func (u Unasked) Health(context.Context) []apiclient.Health {
	out := make([]apiclient.Health, 0, len(u.URLs))
	for _, url := range u.URLs {
		out = append(out, apiclient.Health{URL: url, Reason: "it is not asked: " + u.Cause.Error()})
	}
	return out
}

// AgentsStatus fails with the cause.
func (u Unasked) AgentsStatus(context.Context) (api.AgentsResponse, error) {
	return api.AgentsResponse{}, u.Cause
}
