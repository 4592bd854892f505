package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
)

func TestPanicIsOneCallsEnd(t *testing.T) {
	var log logs
	w := newWorld(t, logTo(&log))
	for _, test := range []struct {
		name string
		h    handler
		// half says that an answer had begun.
		half bool
	}{
		{"before the answer", func(http.ResponseWriter, *http.Request) error { panic("before") }, false},
		{"in the answer", func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "half an ")
			panic(errors.New("amid"))
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := httptest.NewServer(w.handle(test.h, maxBody))
			defer s.Close()
			s.Config.ErrorLog = nil
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if test.half {
				if err == nil {
					defer resp.Body.Close()
					_, err = io.ReadAll(resp.Body)
				}
				if err == nil {
					t.Error("half an answer was taken for the whole")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusInternalServerError {
				t.Errorf("got %s", resp.Status)
			}
		})
	}
	for _, want := range []string{"panic=before", "panic=amid", "bounds_test.go", "level=ERROR"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is not in the log:\n%s", want, &log)
		}
	}
	if rec := w.call("", "GET", "/metrics", ""); !strings.Contains(rec.Body.String(), "dcos_overlay_coordinator_panics_total 2") {
		t.Error("the metric counts something else than 2 panics")
	}
}

func TestMaxStreams(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MaxStreams = 2 })
	base, stop := w.serve()
	defer stop()
	first := w.open(base, 0)
	first.until(api.EventSynced)
	w.open(base, 0).until(api.EventSynced)
	rec := w.call("10.0.0.1", "GET", "/v1/agents?watch=true", "")
	wantError(t, rec, 503, api.CodeBusy, "there are 2 streams, which --max-streams allows: try another coordinator, or this one in 10s")
	if got := rec.Header().Get("Retry-After"); got != "10" {
		t.Errorf("Retry-After is %q", got)
	}
	w.ok("", "GET", "/v1/agents", "", nil)
	_ = first.resp.Body.Close()
	w.until("the place is free again", func() bool { return w.streams.open.Load() == 1 })
	w.open(base, 0).until(api.EventSynced)
	if rec := w.call("", "GET", "/metrics", ""); !strings.Contains(rec.Body.String(), `dcos_overlay_coordinator_refused_total{reason="streams"} 1`) {
		t.Error("the metric does not count the refused stream")
	}
}

func TestMaxConnections(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MaxConnections = 2 })
	base, stop := w.serve()
	defer stop()
	for range 2 {
		w.open(base, 0).until(api.EventSynced)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("a third connection is served")
	}
	if rec := w.call("", "GET", "/metrics", ""); !strings.Contains(rec.Body.String(), `dcos_overlay_coordinator_refused_total{reason="connections"}`) ||
		!strings.Contains(rec.Body.String(), "dcos_overlay_coordinator_connections 2") {
		t.Error("the metrics do not count connections")
	}
}

// TestSlowCallers are cut off, each by the time that bounds it.
func TestSlowCallers(t *testing.T) {
	w := newWorld(t)
	const soon, never = 50 * time.Millisecond, time.Hour
	for _, test := range []struct {
		name  string
		times timeouts
		// send is what the caller sends before it falls silent.
		send string
		// want begins what it is answered, if anything.
		want string
	}{
		{"half a header", timeouts{header: soon, read: never, write: never, idle: never}, "GET /healthz HTTP/1.1\r\nHo", ""},
		{"half a body", timeouts{header: never, read: soon, write: never, idle: never},
			"PUT /v1/overlays/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", "HTTP/1.1 4"},
		{"no next call", timeouts{header: never, read: never, write: never, idle: soon}, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"},
		{"a long header", timeouts{header: never, read: never, write: never, idle: never},
			"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", maxHeader+8<<10), "HTTP/1.1 431"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.timeouts = test.times
			w.stopping, w.stop = t.Context(), func() {}
			base, stop := w.serve()
			defer stop()
			c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, test.send); err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(bufio.NewReader(c))
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Errorf("the connection stays open; so far came %q", text)
			}
			if !strings.HasPrefix(string(text), test.want) {
				t.Errorf("got %q, want %q", text, test.want)
			}
		})
	}
}

// TestReaderThatTakesNothing is cut off, too.
func TestReaderThatTakesNothing(t *testing.T) {
	w := newWorld(t)
	w.timeouts.write = 100 * time.Millisecond
	w.ping = time.Microsecond
	base, stop := w.serve()
	defer stop()
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// What the kernel would keep for the reader is little, so that pings fill it.
	if err := c.(*net.TCPConn).SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /v1/agents?watch=true HTTP/1.1\r\nHost: x\r\n\r\n")
	w.until("the stream is open", func() bool { return w.streams.open.Load() == 1 })
	w.until("the stream is cut off", func() bool { return w.streams.open.Load() == 0 })
}
