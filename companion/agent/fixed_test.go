package agent

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/host"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// TestReportAfterAnOutage: who has fixed addresses asks for his lease anew with
// the first report that gets through, and nobody else does.
func TestReportAfterAnOutage(t *testing.T) {
	for _, fixed := range []bool{false, true} {
		var calls atomic.Int64
		through := make(chan struct{}, 1)
		coordinator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) <= 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte(`{"error":{"code":"unavailable","message":"not now"}}`))
				return
			}
			through <- struct{}{}
		}))
		log := slog.New(slog.DiscardHandler)
		a := &Agent{Host: host.New(agentconf.Config{Master: []string{coordinator.URL}}, log), Interval: time.Hour, Log: log}
		o := lease.Overlay{Name: "o"}
		if fixed {
			o.SetAddress(lease.Address{IP: netip.MustParseAddr("9.0.255.1"), Container: "c", Interface: "eth0"})
		}
		a.held = &agentstate.Held{Agent: lease.Agent{Overlays: []lease.Overlay{o}}}
		r := newReporter(a)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.run(ctx) })
		r.tell(netip.MustParseAddr("127.0.0.1"), 0, api.StatusRequest{ID: "one"})
		select {
		case <-through:
		case <-time.After(30 * time.Second): // it hangs
			t.Fatal("no report gets through")
		}
		if fixed {
			select {
			case <-r.returned:
			case <-time.After(30 * time.Second):
				t.Error("with fixed addresses nothing is asked for anew")
			}
		}
		cancel()
		wg.Wait()
		if !fixed && len(r.returned) > 0 {
			t.Error("without fixed addresses something is asked for anew")
		}
		coordinator.Close()
	}
}

func TestHurry(t *testing.T) {
	a := &Agent{}
	if got := a.hurry(3, time.Minute); got != time.Minute {
		t.Errorf("without lease: %s", got)
	}
	o := lease.Overlay{Name: "o"}
	o.SetAddress(lease.Address{IP: netip.MustParseAddr("9.0.255.1")})
	a.held = &agentstate.Held{Agent: lease.Agent{Overlays: []lease.Overlay{o}}}
	for failures, want := range map[int]time.Duration{0: time.Minute, 3: hurryEvery} {
		if got := a.hurry(failures, time.Minute); got != want {
			t.Errorf("after %d failures: %s, want %s", failures, got, want)
		}
	}
}
