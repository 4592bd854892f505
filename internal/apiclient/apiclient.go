// Package apiclient calls the coordinator's HTTP interface on behalf of one
// agent, at the first of several coordinators that answers.
package apiclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/tlsfile"
)

const (
	// dialTimeout bounds the wait for one coordinator, so that the next one
	// is tried within a second.
	dialTimeout = time.Second
	// answerTimeout bounds the wait for the first byte of an answer: a
	// coordinator that lost its etcd takes a while to say so.
	answerTimeout = 5 * time.Second
	// ackTimeout bounds the wait for the other end's kernel to acknowledge what
	// was sent, which takes a fraction of it even after a few lost packets.
	ackTimeout = 2 * time.Second
	// maxAnswer bounds what is read of an answer that is not a stream, in
	// bytes: 65,536 agents with a dozen subnets each fit.
	maxAnswer = 256 << 20
	// StreamSilence is how long a stream may say nothing before it counts as
	// dead. The coordinator pings three times as often.
	StreamSilence = 30 * time.Second
)

// ErrUnreachable is api.ErrUnreachable.
var ErrUnreachable = api.ErrUnreachable

// Options are what a Client is made of.
type Options struct {
	// Masters are base URLs, tried in order, the last that answered first.
	Masters []string
	// LocalIP, when valid, is the source address of every connection: the
	// coordinator lets an agent act only for the address it calls from.
	LocalIP netip.Addr
	// CAFile, CertFile and KeyFile are PEM files for https; empty ones mean
	// the system's authorities and no client certificate.
	CAFile, CertFile, KeyFile string
	// Patient waits for the first byte of an answer as long as a call's context
	// allows: an operator's change of many agents takes its time.
	Patient bool
}

// Client is safe for use by several goroutines. TLS files that change are read
// again.
type Client struct {
	local netip.Addr
	// answer bounds the wait for the first byte of an answer; 0 means that a
	// call's context does.
	answer time.Duration
	// files is nil where no TLS file is set.
	files *tlsfile.Reader

	mu sync.Mutex
	// masters are in the order in which they are tried.
	masters []string
	http    *http.Client
	// used is what http was made with.
	used *tlsfile.Identity
	// age and stale are what Age tells.
	age   time.Duration
	stale bool
}

// New reads the TLS files, if any; it connects to nothing.
func New(o Options) (*Client, error) {
	if len(o.Masters) == 0 {
		return nil, errors.New("no coordinator is configured: set \"master\" in the agent's file")
	}
	files, err := o.files()
	if err != nil {
		return nil, err
	}
	c := &Client{masters: slices.Clone(o.Masters), local: o.LocalIP, answer: answerTimeout, files: files}
	if o.Patient {
		c.answer = 0
	}
	if files != nil {
		c.used, _ = files.Current()
	}
	c.http = &http.Client{Transport: c.transport()}
	return c, nil
}

// ForAgent calls from the agent's address ip, by its configuration.
func ForAgent(conf agentconf.Config, ip netip.Addr) (*Client, error) {
	return New(Options{Masters: conf.Master, LocalIP: ip, CAFile: conf.CAFile, CertFile: conf.CertFile, KeyFile: conf.KeyFile})
}

// Close drops idle connections.
func (c *Client) Close() { c.client().CloseIdleConnections() }

// Claim asks for a lease for the agent at ip, or for what it holds already.
func (c *Client) Claim(ctx context.Context, ip netip.Addr, req api.ClaimRequest) (api.ClaimResponse, error) {
	var out api.ClaimResponse
	err := c.call(ctx, http.MethodPut, fill(api.PathLease, ip), req, &out)
	return out, err
}

// Release gives back all that the agent at ip holds. No lease is success.
func (c *Client) Release(ctx context.Context, ip netip.Addr) error {
	err := c.call(ctx, http.MethodDelete, fill(api.PathLease, ip), nil, nil)
	if IsCode(err, api.CodeNotFound) {
		return nil
	}
	return err
}

// ReleaseSubnet gives back one subnet that the agent at ip holds of an overlay
// beside its first ones. Not held is success.
func (c *Client) ReleaseSubnet(ctx context.Context, ip netip.Addr, overlay string, subnet netip.Prefix) error {
	query := url.Values{"overlay": {overlay}, "subnet": {subnet.String()}}
	return c.call(ctx, http.MethodDelete, fill(api.PathLease, ip)+"?"+query.Encode(), nil, nil)
}

// ReleaseOverlay gives back what the agent at ip holds of one overlay. Nothing
// held is success.
func (c *Client) ReleaseOverlay(ctx context.Context, ip netip.Addr, overlay string) error {
	return c.call(ctx, http.MethodDelete, fill(api.PathLease, ip)+"?"+url.Values{"overlay": {overlay}}.Encode(), nil, nil)
}

// ClaimAddress asks for a fixed address of the overlay for a container of the
// agent at ip.
func (c *Client) ClaimAddress(ctx context.Context, ip netip.Addr, overlay string, addr netip.Addr, req api.AddressRequest) (api.ClaimResponse, error) {
	var out api.ClaimResponse
	err := c.call(ctx, http.MethodPut, fillAddress(ip, overlay, addr), req, &out)
	return out, err
}

// ReleaseAddress gives a fixed address of that container back. One that it does
// not hold is success.
func (c *Client) ReleaseAddress(ctx context.Context, ip netip.Addr, overlay string, addr netip.Addr, container, ifName string) error {
	query := url.Values{"container": {container}, "ifname": {ifName}}
	return c.call(ctx, http.MethodDelete, fillAddress(ip, overlay, addr)+"?"+query.Encode(), nil, nil)
}

// Report tells the coordinator the agent's own word on its overlays.
func (c *Client) Report(ctx context.Context, ip netip.Addr, req api.StatusRequest) error {
	return c.call(ctx, http.MethodPut, fill(api.PathStatus, ip), req, nil)
}

// Agents lists every agent with the network's configuration.
func (c *Client) Agents(ctx context.Context) (api.AgentsResponse, error) {
	var out api.AgentsResponse
	err := c.call(ctx, http.MethodGet, api.PathAgents, nil, &out)
	return out, err
}

// Watch reads the stream of agents from after revision since of the epoch, 0
// for all of it, and hands each event to handle until the stream ends, handle
// fails, or nothing comes for StreamSilence. It always returns an error; the
// caller resumes with the revision of the last event, and the last epoch that
// one told.
func (c *Client) Watch(ctx context.Context, since int64, epoch string, handle func(api.Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	query := url.Values{"watch": {"true"}}
	if since > 0 {
		query.Set("since", strconv.FormatInt(since, 10))
		if epoch != "" {
			query.Set("epoch", epoch)
		}
	}
	resp, err := c.send(ctx, http.MethodGet, api.PathAgents+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	silence := time.AfterFunc(StreamSilence, func() {
		cancel(fmt.Errorf("nothing heard for %s", StreamSilence))
	})
	defer silence.Stop()
	dec := json.NewDecoder(resp.Body)
	for {
		var e api.Event
		if err := dec.Decode(&e); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("stream of agents from %s ended: %w", resp.Request.URL.Host, err)
		}
		silence.Reset(StreamSilence)
		if err := handle(e); err != nil {
			return err
		}
	}
}

// IsCode tells whether err is the coordinator's error with that code.
func IsCode(err error, code api.Code) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == code
}

func fill(path string, ip netip.Addr) string {
	return strings.Replace(path, "{ip}", url.PathEscape(ip.String()), 1)
}

func fillAddress(ip netip.Addr, overlay string, addr netip.Addr) string {
	return strings.NewReplacer(
		"{ip}", url.PathEscape(ip.String()), "{overlay}", url.PathEscape(overlay), "{address}", url.PathEscape(addr.String()),
	).Replace(api.PathAddress)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
	}
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	limited := io.LimitReader(resp.Body, maxAnswer)
	if out == nil {
		_, err = io.Copy(io.Discard, limited)
	} else {
		err = json.NewDecoder(limited).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("read the answer of coordinator %s to %s %s: %w", resp.Request.URL.Host, method, path, err)
	}
	return nil
}

// send tries each coordinator once. One that can't be reached, or that says
// that it is not able to serve now, passes the turn to the next; any other
// answer is final.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	var causes []string
	for _, base := range c.order() {
		resp, err := c.try(ctx, method, base+path, body)
		if err == nil {
			c.prefer(base)
			c.noteAge(resp.Header)
			return resp, nil
		}
		var refused *api.Error
		if errors.As(err, &refused) && refused.Code != api.CodeUnavailable && refused.Code != api.CodeBusy {
			return nil, err
		}
		causes = append(causes, fmt.Sprintf("%s: %v", base, c.explain(err)))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("%w (%s)", ErrUnreachable, strings.Join(causes, "; "))
}

// order are the coordinators as they are to be tried.
func (c *Client) order() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.masters)
}

// prefer has the coordinator that answered tried first.
func (c *Client) prefer(base string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.masters, base)
	c.masters[0], c.masters[i] = c.masters[i], c.masters[0]
}

func (c *Client) try(ctx context.Context, method, target string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, err
	}
	var e api.ErrorBody
	if err := json.Unmarshal(text, &e); err != nil || e.Error == nil {
		if speaksTLS(resp.StatusCode, string(text)) {
			return nil, errors.New("it speaks HTTPS and not HTTP: write https:// in \"master\"")
		}
		// Not our coordinator: a proxy, or another service on the port.
		return nil, fmt.Errorf("answered %s, which is not a coordinator's answer: is \"master\" right?", resp.Status)
	}
	e.Error.Status = resp.StatusCode
	return nil, e.Error
}
