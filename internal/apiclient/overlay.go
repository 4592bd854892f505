package apiclient

import (
	"context"
	"net/http"
	"net/url"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Overlay reads the configuration of one overlay; an unknown one is an error
// with api.CodeNotFound.
func (c *Client) Overlay(ctx context.Context, name string) (network.Overlay, error) {
	var out network.Overlay
	err := c.call(ctx, http.MethodGet, api.PathOverlays+"/"+url.PathEscape(name), nil, &out)
	return out, err
}
