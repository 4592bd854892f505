// Package mesos follows the word of Mesos's leading master on which agents
// there are, by the event stream of the v1 operator API.
package mesos

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/tlsfile"
)

const (
	// DefaultGrace is how long an agent may be gone from Mesos before what it
	// holds is released: longer than a master gives agents to come back after
	// a failover (--agent_reregister_timeout, 10 minutes if not set).
	DefaultGrace = 15 * time.Minute

	pathAPI = "/api/v1"
	// connectTimeout and headerTimeout bound how long a master may take to be
	// reached, and to answer; the state may take it seconds to make.
	connectTimeout = 5 * time.Second
	headerTimeout  = 30 * time.Second
	// defaultHeartbeat is Mesos's; a stream is dead that is silent for
	// missedHeartbeats of them.
	defaultHeartbeat = 15 * time.Second
	missedHeartbeats = 3
	// recheck is how long a stream lasts that began while agents had not come
	// back to a new master yet. No event tells of those that never do.
	recheck = time.Minute
	// maxRedirects bounds the way to the leading master.
	maxRedirects = 5
	minBackoff   = time.Second
	maxBackoff   = 30 * time.Second
	// maxWords is how much of a refusal's text is repeated, in bytes.
	maxWords = 200
)

// Options are what a Follower is made of.
type Options struct {
	// Masters are http or https URLs of masters; any leads to the leading one.
	Masters []string
	// Credentials is the path of a JSON file with principal and secret, as
	// Mesos agents have it; "" for none. It is read for each connection.
	Credentials string
	// CA is a PEM file of authorities for https; "" for the system's.
	CA  string
	Log *slog.Logger
}

// Check tells whether o can be used. Its errors name flags.
func (o Options) Check() error {
	for _, m := range o.Masters {
		u, err := url.Parse(m)
		switch {
		case err != nil:
			return fmt.Errorf("--mesos-master %q is not a URL: %w", m, err)
		case u.Scheme == "zk":
			return fmt.Errorf("--mesos-master %q: ZooKeeper is not asked: name one or more masters by their http or https URLs; any of them leads to the leading one", m)
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "":
			return fmt.Errorf("--mesos-master %q must be a URL as in http://10.0.0.1:5050", m)
		}
	}
	if len(o.Masters) == 0 && o.Credentials+o.CA != "" {
		return errors.New("--mesos-credentials and --mesos-ca are of no use without --mesos-master")
	}
	if _, err := o.credentials(); err != nil {
		return err
	}
	_, err := tlsfile.Open(o.files())
	return err
}

func (o Options) files() tlsfile.Set {
	return tlsfile.Set{CA: tlsfile.File{Name: "--mesos-ca", Path: o.CA}}
}

type credentials struct {
	Principal string `json:"principal"`
	Secret    string `json:"secret"`
}

// credentials reads the file; nil when there is none.
func (o Options) credentials() (*credentials, error) {
	if o.Credentials == "" {
		return nil, nil
	}
	data, err := os.ReadFile(o.Credentials)
	if err != nil {
		return nil, fmt.Errorf("read --mesos-credentials: %w", err)
	}
	var c credentials
	if err := json.Unmarshal(data, &c); err != nil || c.Principal == "" {
		return nil, fmt.Errorf(`--mesos-credentials %s must hold {"principal": "…", "secret": "…"}`, o.Credentials)
	}
	return &c, nil
}

// Follower keeps what Mesos says of its agents.
type Follower struct {
	opts Options
	http *http.Client

	mu sync.Mutex
	// state is nil while no stream is open: nothing is known then.
	state *state
	// events and breaks count, since the start.
	events, breaks int
}

// New makes a Follower; o is such that Check finds no fault.
func New(o Options) (*Follower, error) {
	files, err := tlsfile.Open(o.files())
	if err != nil {
		return nil, err
	}
	id, err := files.Current()
	if err != nil {
		return nil, err
	}
	return &Follower{opts: o, http: &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: id.Authorities},
			TLSHandshakeTimeout:   connectTimeout,
			ResponseHeaderTimeout: headerTimeout,
			DisableCompression:    true,
			DisableKeepAlives:     true,
		},
		// The standard way would leave the credentials behind.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// View is what Mesos says now; ok is false while nothing is known.
func (f *Follower) View() (view registry.MesosView, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == nil {
		return registry.MesosView{}, false
	}
	return f.state.view(), true
}

// Run follows a master until ctx ends, and another one when that breaks.
func (f *Follower) Run(ctx context.Context) error {
	backoff := minBackoff
	for turn := 0; ; turn++ {
		master := f.opts.Masters[turn%len(f.opts.Masters)]
		began, err := f.follow(ctx, master)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errRecheck) {
			turn-- // The same one again, and at once.
			continue
		}
		if began {
			backoff = minBackoff
		}
		f.opts.Log.Warn("Mesos is not followed; nothing is concluded from that", "master", master, "error", err, "retry", backoff)
		timer := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		// All masters get their turn before it waits for longer.
		if !began && (turn+1)%len(f.opts.Masters) == 0 {
			backoff = min(2*backoff, maxBackoff)
		}
	}
}

var (
	// errRecheck ends a stream whose state was not settled.
	errRecheck = errors.New("asking for the state anew")
	// errSilent ends a stream without heartbeats.
	errSilent = errors.New("the master is silent")
)

// follow keeps the state by one stream, until it ends.
func (f *Follower) follow(ctx context.Context, master string) (began bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := f.subscribe(ctx, master)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	watchdog := time.AfterFunc(headerTimeout, func() { cancel(errSilent) })
	defer watchdog.Stop()
	patience := headerTimeout
	in := newRecords(readerFunc(func(p []byte) (int, error) {
		n, err := resp.Body.Read(p)
		watchdog.Reset(patience)
		return n, err
	}))
	fail := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("events of %s: %w", resp.Request.URL.Host, err)
	}

	record, err := in.next()
	if err != nil {
		return false, fail(err)
	}
	s, err := begin(record)
	if err != nil {
		return false, fail(err)
	}
	patience = missedHeartbeats * s.heartbeat
	watchdog.Reset(patience)
	if len(s.recovered) > 0 {
		again := time.AfterFunc(recheck, func() { cancel(errRecheck) })
		defer again.Stop()
	}
	f.set(s)
	defer f.set(nil)
	f.opts.Log.Info("following Mesos", "master", resp.Request.URL.Host, "agents", len(s.agents), "recovering", len(s.recovered))
	for {
		record, err := in.next()
		if err == nil {
			err = f.apply(s, record)
		}
		if err != nil {
			return true, fail(err)
		}
	}
}

func (f *Follower) set(s *state) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
	if s == nil {
		f.breaks++
	}
}

func (f *Follower) apply(s *state, record []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events++
	return s.apply(record)
}

type readerFunc func([]byte) (int, error)

func (r readerFunc) Read(p []byte) (int, error) { return r(p) }

// subscribe asks master for events, and goes where that sends it.
func (f *Follower) subscribe(ctx context.Context, master string) (*http.Response, error) {
	at, err := url.Parse(master)
	if err != nil {
		return nil, fmt.Errorf("master %s: %w", master, err)
	}
	at = at.JoinPath(pathAPI)
	for range maxRedirects {
		resp, err := f.post(ctx, at)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusTemporaryRedirect {
			return resp, accepted(resp)
		}
		resp.Body.Close()
		next, err := at.Parse(resp.Header.Get("Location"))
		switch {
		case err != nil:
			return nil, fmt.Errorf("master %s redirects: %w", at.Host, err)
		case at.Scheme == "https" && next.Scheme != "https":
			return nil, fmt.Errorf("master %s redirects to %s, where the credentials would not be secret", at.Host, next)
		case next.Path != pathAPI && next.Path != "/master"+pathAPI:
			// Old masters name the host only.
			next = next.JoinPath(pathAPI)
		}
		at = next
	}
	return nil, fmt.Errorf("master %s: %d redirects lead to no leading master", master, maxRedirects)
}

func (f *Follower) post(ctx context.Context, at *url.URL) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), strings.NewReader(`{"type":"SUBSCRIBE"}`))
	if err != nil {
		return nil, fmt.Errorf("master %s: %w", at.Host, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	c, err := f.opts.credentials()
	if err != nil {
		return nil, err
	}
	if c != nil {
		req.SetBasicAuth(c.Principal, c.Secret)
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("subscribe to Mesos: %w", err)
	}
	return resp, nil
}

// accepted tells whether resp is a stream of events, and closes it if not.
func accepted(resp *http.Response) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == "application/json" {
		return nil
	}
	defer resp.Body.Close()
	words, _ := io.ReadAll(io.LimitReader(resp.Body, maxWords))
	text := string(bytes.Join(bytes.Fields(words), []byte(" ")))
	host := resp.Request.URL.Host
	switch resp.StatusCode {
	case http.StatusOK:
		return fmt.Errorf("master %s answers with %q, not with events in JSON: is this a Mesos master?", host, kind)
	case http.StatusUnauthorized:
		return fmt.Errorf("master %s does not know who asks: set --mesos-credentials to a principal and secret of its --http_authenticators: %s", host, text)
	case http.StatusForbidden:
		return fmt.Errorf("master %s does not let this principal ask for events: %s", host, text)
	case http.StatusServiceUnavailable:
		return fmt.Errorf("master %s can't tell yet: %s", host, text)
	}
	return fmt.Errorf("master %s answers %s: %s", host, resp.Status, text)
}
