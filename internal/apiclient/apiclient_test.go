package apiclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

var agentIP = netip.MustParseAddr("172.17.0.4")

func server(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func client(t *testing.T, masters ...string) *Client {
	c, err := New(Options{Masters: masters, LocalIP: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// closed is an address where nobody listens.
func closed(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestClaimGoesToTheNextCoordinator(t *testing.T) {
	unwell := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"error":{"code":"unavailable","message":"etcd is away"}}`)
	})
	var got api.ClaimRequest
	well := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || r.URL.Path != "/v1/agents/172.17.0.4/lease" {
			t.Errorf("called %s %s", r.Method, r.URL)
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(api.ClaimResponse{Agent: lease.Agent{IP: agentIP}, Revision: 5})
	})
	dead := closed(t)
	c := client(t, dead, unwell, well)
	resp, err := c.Claim(t.Context(), agentIP, api.ClaimRequest{ID: "x", Overlays: []string{"dcos"}})
	if err != nil || resp.Revision != 5 || got.Overlays[0] != "dcos" {
		t.Fatalf("got %+v, %v, request %+v", resp, err, got)
	}
	if c.masters[0] != well {
		t.Error("the one that answered is not asked first next time")
	}
}

func TestUnreachableNamesAllThatWereTried(t *testing.T) {
	a, b := closed(t), server(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusBadGateway) })
	_, err := client(t, a, b).Agents(t.Context())
	if !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{a, b, "connection refused", "502 Bad Gateway"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestRefusalIsFinal(t *testing.T) {
	refusing := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"error":{"code":"exhausted","message":"overlay dcos: none left"}}`)
	})
	_, err := client(t, refusing, closed(t)).Claim(t.Context(), agentIP, api.ClaimRequest{})
	if !IsCode(err, api.CodeExhausted) || errors.Is(err, ErrUnreachable) || err.Error() != "overlay dcos: none left" {
		t.Fatalf("got %v", err)
	}
}

func TestReleaseOfNothing(t *testing.T) {
	none := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error":{"code":"not_found","message":"no such agent"}}`)
	})
	if err := client(t, none).Release(t.Context(), agentIP); err != nil {
		t.Error(err)
	}
}

func TestReleaseOverlay(t *testing.T) {
	asked := ""
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.String()
		w.WriteHeader(http.StatusNoContent)
	})
	if err := client(t, s).ReleaseOverlay(t.Context(), agentIP, "a&b"); err != nil || asked != "DELETE /v1/agents/172.17.0.4/lease?overlay=a%26b" {
		t.Errorf("asked %q, got %v", asked, err)
	}
}

func TestWatch(t *testing.T) {
	var query string
	stream := server(t, func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RawQuery
		fmt.Fprintln(w, `{"type":"set","revision":8,"agent":{"ip":"172.17.0.3","id":"","vtep":{"ip":"44.128.0.3/20","mac":"70:b3:d5:80:00:03"},"network_config":{}}}`)
		fmt.Fprintln(w, `{"type":"synced","revision":8}`)
	})
	var types []api.EventType
	err := client(t, stream).Watch(t.Context(), 7, "e1", func(e api.Event) error {
		types = append(types, e.Type)
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("the end of the stream is %v", err)
	}
	if query != "epoch=e1&since=7&watch=true" || len(types) != 2 || types[1] != api.EventSynced {
		t.Errorf("asked %q, got %v", query, types)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	stream := server(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"type":"ping","revision":1}`)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := client(t, stream).Watch(ctx, 0, "", func(api.Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
