package apiclient

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

// What follows are operators' calls.

// AgentsStatus lists every agent, and how each was when it last reported.
func (c *Client) AgentsStatus(ctx context.Context) (api.AgentsResponse, error) {
	var out api.AgentsResponse
	err := c.call(ctx, http.MethodGet, api.PathAgents+"?status=true", nil, &out)
	return out, err
}

// Agent reads one agent's record and status.
func (c *Client) Agent(ctx context.Context, ip netip.Addr) (api.AgentResponse, error) {
	var out api.AgentResponse
	err := c.call(ctx, http.MethodGet, api.PathAgents+"/"+url.PathEscape(ip.String()), nil, &out)
	return out, err
}

// DeleteAgents forgets the agents and frees what they held; with force those
// that are alive, too.
func (c *Client) DeleteAgents(ctx context.Context, ips []netip.Addr, force bool) error {
	req := api.DeleteAgentsRequest{Force: force}
	for _, ip := range ips {
		req.Agents = append(req.Agents, ip.String())
	}
	return c.call(ctx, http.MethodPost, api.PathAgentsDelete, req, nil)
}

// Overlays lists the overlays with how far each is in its life.
func (c *Client) Overlays(ctx context.Context) ([]api.Overlay, error) {
	var out []api.Overlay
	err := c.call(ctx, http.MethodGet, api.PathOverlays, nil, &out)
	return out, err
}

// OverlayStatus reads one overlay with how far it is in its life.
func (c *Client) OverlayStatus(ctx context.Context, name string) (api.Overlay, error) {
	var out api.Overlay
	err := c.call(ctx, http.MethodGet, overlayPath(name), nil, &out)
	return out, err
}

// PutOverlay makes the overlay what o says, or makes it.
func (c *Client) PutOverlay(ctx context.Context, o network.Overlay) (api.Overlay, error) {
	var out api.Overlay
	err := c.call(ctx, http.MethodPut, overlayPath(o.Name), o, &out)
	return out, err
}

// DeleteOverlay disables the overlay and answers it, or nil when it is gone,
// which it is once no agent holds of it; force takes it from all of them.
func (c *Client) DeleteOverlay(ctx context.Context, name string, force bool) (*api.Overlay, error) {
	path := overlayPath(name)
	if force {
		path += "?force=true"
	}
	resp, err := c.send(ctx, http.MethodDelete, path, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	var out api.Overlay
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out); err != nil {
		return nil, fmt.Errorf("read the answer of coordinator %s to the delete of overlay %s: %w", resp.Request.URL.Host, name, err)
	}
	return &out, nil
}

// FixedAddresses lists the fixed addresses of an overlay that are held.
func (c *Client) FixedAddresses(ctx context.Context, overlay string) ([]api.FixedAddress, error) {
	var out []api.FixedAddress
	err := c.call(ctx, http.MethodGet, overlayPath(overlay)+"/addresses", nil, &out)
	return out, err
}

// Reservations lists the fixed addresses of an overlay that are reserved.
func (c *Client) Reservations(ctx context.Context, overlay string) ([]api.Reservation, error) {
	var out []api.Reservation
	err := c.call(ctx, http.MethodGet, overlayPath(overlay)+"/reservations", nil, &out)
	return out, err
}

// Reservation reads one of them; one that is not reserved is an error with
// api.CodeNotFound.
func (c *Client) Reservation(ctx context.Context, overlay string, addr netip.Addr) (api.Reservation, error) {
	var out api.Reservation
	err := c.call(ctx, http.MethodGet, reservationPath(overlay, addr), nil, &out)
	return out, err
}

// Reserve keeps a fixed address for containers that carry the label.
func (c *Client) Reserve(ctx context.Context, overlay string, addr netip.Addr, label string) (api.Reservation, error) {
	var out api.Reservation
	err := c.call(ctx, http.MethodPut, reservationPath(overlay, addr), api.Reservation{Label: label}, &out)
	return out, err
}

// Unreserve ends that. One that is not reserved is success.
func (c *Client) Unreserve(ctx context.Context, overlay string, addr netip.Addr) error {
	return c.call(ctx, http.MethodDelete, reservationPath(overlay, addr), nil, nil)
}

func overlayPath(name string) string { return api.PathOverlays + "/" + url.PathEscape(name) }

func reservationPath(overlay string, addr netip.Addr) string {
	return overlayPath(overlay) + "/reservations/" + url.PathEscape(addr.String())
}

// State reads DC/OS's state, as it is.
func (c *Client) State(ctx context.Context) (json.RawMessage, error) {
	var out json.RawMessage
	err := c.call(ctx, http.MethodGet, api.PathState, nil, &out)
	return out, err
}

// Import takes over what the agents of a state hold.
func (c *Client) Import(ctx context.Context, state json.RawMessage) (api.ImportResponse, error) {
	var out api.ImportResponse
	err := c.call(ctx, http.MethodPost, api.PathImport, state, &out)
	return out, err
}

// Health is how one coordinator answered.
type Health struct {
	URL string `json:"url"`
	// Ready says that it serves; Reason says why not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Answered says that it answered at all, and Took how long that took.
	Answered bool          `json:"answered"`
	Took     time.Duration `json:"took_ns,omitempty"`
	// Skew is how far its clock is ahead of this machine's; it is known to a
	// second, and 0 below that.
	Skew time.Duration `json:"clock_skew_ns,omitempty"`
	// Expires is when its certificate does; zero without TLS.
	Expires time.Time `json:"certificate_expires,omitzero"`
}

// maxReason bounds what is read of a coordinator's own word on its health.
const maxReason = 4 << 10

// Health asks each coordinator, in the order in which they were given.
func (c *Client) Health(ctx context.Context) []Health {
	out := make([]Health, 0, len(c.masters))
	for _, base := range c.masters {
		out = append(out, c.health(ctx, base))
	}
	return out
}

func (c *Client) health(ctx context.Context, base string) Health {
	h := Health{URL: base}
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		h.Reason = err.Error()
		return h
	}
	resp, err := c.http.Do(req)
	if err != nil {
		h.Reason = terse(err).Error()
		return h
	}
	defer resp.Body.Close()
	now := time.Now()
	h.Answered, h.Took = true, now.Sub(began)
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The header has whole seconds: it was written at date or up to a
		// second later, and between began and now.
		switch {
		case date.After(now):
			h.Skew = date.Sub(now)
		case date.Add(time.Second).Before(began):
			h.Skew = date.Add(time.Second).Sub(began)
		}
	}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		h.Expires = resp.TLS.PeerCertificates[0].NotAfter
	}
	h.Ready = resp.StatusCode == http.StatusOK
	if !h.Ready {
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxReason))
		if err != nil {
			text = []byte(err.Error())
		}
		var body api.ErrorBody
		if json.Unmarshal(text, &body) == nil && body.Error != nil {
			text = []byte(body.Error.Message)
		}
		h.Reason = fmt.Sprintf("%s: %s", resp.Status, text)
	}
	return h
}
