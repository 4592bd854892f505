package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// Cut is Remove, but takes the containers off the network first: they go on
// without it.
func (e *Engine) Cut(ctx context.Context, name string) error { return e.ours(ctx, name, session.cut) }

func (s session) cut(ctx context.Context, have apinetwork.Inspect) error {
	for _, id := range slices.Sorted(maps.Keys(have.Containers)) {
		_, err := s.NetworkDisconnect(ctx, have.ID, client.NetworkDisconnectOptions{Container: id, Force: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return s.wrap(fmt.Sprintf("taking container %s off Docker network %s", have.Containers[id].Name, have.Name), err)
		}
	}
	have.Containers = nil
	return s.remove(ctx, have)
}
