package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// Cut is Remove, but takes the containers off the network first: they go on
// without it.
func (e *Engine) Cut(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	have, err := s.find(ctx, name)
	if err != nil || have == nil || have.Labels[Label] != name {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(have.Containers)) {
		_, err := s.NetworkDisconnect(ctx, have.ID, client.NetworkDisconnectOptions{Container: id, Force: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return s.wrap(fmt.Sprintf("taking container %s off Docker network %s", have.Containers[id].Name, name), err)
		}
	}
	have.Containers = nil
	return s.remove(ctx, *have)
}
