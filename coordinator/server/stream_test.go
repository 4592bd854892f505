package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
)

// serve makes w listen until the returned function is called.
func (w *world) serve() (base string, stop func()) {
	w.t.Helper()
	l, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx, l) }()
	return "http://" + l.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Serve: %v", err)
		}
	}
}

// lines reads a stream.
type lines struct {
	t    testing.TB
	resp *http.Response
	scan *bufio.Scanner
}

func (w *world) open(base string, since int64) *lines {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	w.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/agents?watch=true&since=%d", base, since), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
		w.t.Errorf("content type %q", got)
	}
	return newLines(w.t, resp)
}

func newLines(t testing.TB, resp *http.Response) *lines {
	return &lines{t: t, resp: resp, scan: bufio.NewScanner(resp.Body)}
}

// until reads up to the first event of type want.
func (l *lines) until(want api.EventType) api.Event {
	l.t.Helper()
	for l.scan.Scan() {
		var e api.Event
		if err := json.Unmarshal(l.scan.Bytes(), &e); err != nil {
			l.t.Fatalf("%v in %q", err, l.scan.Text())
		}
		if e.Type == want {
			return e
		}
	}
	l.t.Fatalf("the stream ended before %s: %v", want, l.scan.Err())
	return api.Event{}
}

func TestStream(t *testing.T) {
	w := newWorld(t)
	base, stop := w.serve()
	first := w.open(base, 0)
	synced := first.until(api.EventSynced)
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/lease", `{"id": "a"}`, nil)
	if e := first.until(api.EventSet); e.Agent.IP.String() != "172.17.0.2" || e.Revision <= synced.Revision {
		t.Errorf("got %+v", e)
	}
	ping := first.until(api.EventPing)
	if resumed := w.open(base, synced.Revision).until(api.EventSet); resumed.Revision != ping.Revision {
		t.Errorf("resumed at %d: got %+v", synced.Revision, resumed)
	}
	if e := w.open(base, ping.Revision).until(api.EventSynced); e.Revision != ping.Revision {
		t.Errorf("resumed at %d: got %+v", ping.Revision, e)
	}
	w.open(base, ping.Revision+100).until(api.EventSnapshot)

	// Stopping ends the streams at once, and cleanly.
	stop()
	for first.scan.Scan() {
	}
	if err := first.scan.Err(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stream was broken off: %v", err)
	}
	w.until("no watcher is left", func() bool { return w.registry.Counts().Watchers == 0 })
}
