package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/host"
)

// TestReporter: what is news is sent at once, what is not waits for the
// heartbeat, and a coordinator without record is told of.
func TestReporter(t *testing.T) {
	ids := make(chan string)
	coordinator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req api.StatusRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		if req.ID == "unknown" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error":{"code":"not_found","message":"no such agent"}}`))
		}
		ids <- req.ID
	}))
	defer coordinator.Close()
	log := slog.New(slog.DiscardHandler)
	a := &Agent{Host: host.New(agentconf.Config{Master: []string{coordinator.URL}}, log), Interval: time.Hour, Log: log}
	r := newReporter(a)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.run(ctx) })
	defer func() {
		cancel()
		wg.Wait()
	}()
	tell := func(claims int, id string) {
		r.tell(netip.MustParseAddr("127.0.0.1"), claims, api.StatusRequest{ID: id})
	}
	want := func(id string) {
		t.Helper()
		select {
		case got := <-ids:
			if got != id {
				t.Errorf("the coordinator is told %q, want %q", got, id)
			}
		case <-time.After(30 * time.Second): // it hangs
			t.Fatalf("the coordinator is not told %q", id)
		}
	}
	tell(0, "one")
	want("one")
	tell(0, "one") // no news
	tell(0, "two")
	want("two")
	tell(1, "two") // after a claim it is
	want("two")
	tell(1, "unknown")
	want("unknown")
	<-r.forgotten
}
