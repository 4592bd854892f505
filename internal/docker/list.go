package docker

import (
	"context"
	"slices"

	"github.com/moby/moby/client"
)

// List names the overlays that have a Docker network of ours, sorted.
func (e *Engine) List(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	list, err := s.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("label", Label)})
	if err != nil {
		return nil, s.wrap("listing Docker networks", err)
	}
	var out []string
	for _, n := range list.Items {
		if n.Labels[Label] == n.Name {
			out = append(out, n.Name)
		}
	}
	slices.Sort(out)
	return out, nil
}
