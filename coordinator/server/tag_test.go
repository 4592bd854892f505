package server

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// state asks for the state with headers.
func (w *world) state(headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, api.PathState, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	return rec
}

// TestStateTag: whoever has the state is told so, however he has it, until an
// agent's record or the network changes.
func TestStateTag(t *testing.T) {
	w := newWorld(t)
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/lease", `{"id": "a", "all_overlays": true}`, nil)
	plain, packed := w.state(), w.state("Accept-Encoding", "br, gzip")
	tag, packedTag := plain.Header().Get("ETag"), packed.Header().Get("ETag")
	if tag == "" || packedTag == "" || tag == packedTag || packed.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("tags %s and %s", tag, packedTag)
	}
	unpack, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(unpack)
	if err != nil || !bytes.Equal(got, plain.Body.Bytes()) {
		t.Errorf("unpacked, the state is %s (%v), not %s", got, err, plain.Body)
	}
	for _, have := range []string{tag, packedTag, `"x", ` + tag, "W/" + tag, "*"} {
		for _, coding := range []string{"", "gzip"} {
			if rec := w.state("If-None-Match", have, "Accept-Encoding", coding); rec.Code != http.StatusNotModified || rec.Body.Len() > 0 {
				t.Errorf("with %s: %d, %d bytes", have, rec.Code, rec.Body.Len())
			}
		}
	}
	if rec := w.state("If-None-Match", `"x"`); rec.Code != http.StatusOK {
		t.Errorf("with another's tag: %d", rec.Code)
	}

	// That an agent has reported is not in the state.
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/status", `{"overlays": []}`, nil)
	if rec := w.state("If-None-Match", tag); rec.Code != http.StatusNotModified {
		t.Errorf("after a report with nothing new: %d", rec.Code)
	}
	last := tag
	for _, change := range []struct{ what, caller, method, target, body string }{
		{"a state", "172.17.0.2", "PUT", "/v1/agents/172.17.0.2/status", `{"overlays": [{"name": "dcos", "state": {"status": "STATUS_OK"}}]}`},
		{"an agent", "172.17.0.3", "PUT", "/v1/agents/172.17.0.3/lease", `{"id": "b"}`},
		{"an overlay", "", "PUT", "/v1/overlays/new", `{"subnet": "11.0.0.0/8", "prefix": 24}`},
		{"an agent gone", "172.17.0.3", "DELETE", "/v1/agents/172.17.0.3/lease", ""},
	} {
		w.ok(change.caller, change.method, change.target, change.body, nil)
		for _, coding := range []string{"gzip", ""} {
			rec := w.state("If-None-Match", last, "Accept-Encoding", coding)
			if rec.Code != http.StatusOK {
				t.Fatalf("after %s: %d", change.what, rec.Code)
			}
			if coding == "" {
				last = rec.Header().Get("ETag")
				w.wantState(change.what, rec.Body.Bytes())
			}
		}
	}
	if last == tag {
		t.Error("the tag has not changed")
	}
}

// wantState fails the test unless body is what records and network make.
func (w *world) wantState(after string, body []byte) {
	w.t.Helper()
	sight, err := w.registry.Sight(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	want := masterstate.State{Agents: []masterstate.Agent{}, Network: *w.registry.Network()}
	for _, a := range sight.Agents {
		want.Agents = append(want.Agents, masterstate.Entry(a.Agent, &want.Network))
	}
	text, err := json.Marshal(want)
	if err != nil {
		w.t.Fatal(err)
	}
	if strings.TrimSpace(string(body)) != string(text) {
		w.t.Errorf("after %s: got %s, want %s", after, body, text)
	}
}

func TestTakesGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZip": true, "deflate, gzip;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0": false, "gzipped": false, "identity": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept-Encoding", header)
		if got := takesGzip(r); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

// TestAgentsAnswer: put together from prepared parts, the answer is what the
// whole would be.
func TestAgentsAnswer(t *testing.T) {
	w := newWorld(t)
	for n := range 3 {
		var got api.AgentsResponse
		w.ok("", "GET", "/v1/agents?status=true", "", &got)
		if len(got.Agents) != n || len(got.Status) != n || got.Agents == nil || len(got.Network.Overlays) != 2 {
			t.Errorf("with %d agents: %+v", n, got)
		}
		ip := fmt.Sprint("172.17.0.", n+2)
		var claimed api.ClaimResponse
		w.ok(ip, "PUT", "/v1/agents/"+ip+"/lease", `{"id": "`+ip+`", "all_overlays": true}`, &claimed)
		w.ok("", "GET", "/v1/agents", "", &got)
		if last := got.Agents[len(got.Agents)-1]; !reflect.DeepEqual(last, claimed.Agent) {
			t.Errorf("got %+v, want %+v", last, claimed.Agent)
		}
	}
}

// TestListBreaksOff: an answer that ends for a fault does not look whole.
func TestListBreaksOff(t *testing.T) {
	fault := errors.New("fault")
	items := iter.Seq2[[]byte, error](func(yield func([]byte, error) bool) { _ = yield([]byte("1"), nil) && yield(nil, fault) })
	var out bytes.Buffer
	if err := writeList(&out, struct{ A []int }{[]int{}}, items); !errors.Is(err, fault) {
		t.Errorf("got %v", err)
	}
	if strings.Contains(out.String(), "]") {
		t.Errorf("got %s", out.String())
	}
	if err := writeList(&out, struct{ A int }{}, items); err == nil {
		t.Error("what has no list can't be written as one")
	}
}

// TestExhaustion: the overlay has eight subnets, and the ninth claim is told
// so; what it held meanwhile is free again.
func TestExhaustion(t *testing.T) {
	w := newWorld(t)
	w.ok("", "PUT", "/v1/overlays/small", `{"subnet": "11.0.0.0/21", "prefix": 24}`, nil)
	for i := range 8 {
		ip := fmt.Sprint("172.17.1.", i+1)
		w.ok(ip, "PUT", "/v1/agents/"+ip+"/lease", `{"id": "`+ip+`", "overlays": ["small"]}`, nil)
	}
	rec := w.call("172.17.1.9", "PUT", "/v1/agents/172.17.1.9/lease", `{"id": "nine", "overlays": ["small"]}`)
	wantError(t, rec, 409, api.CodeExhausted, "overlay small: no free /24 of 11.0.0.0/21: 8 leased, none resting")
	var got api.ClaimResponse
	w.ok("172.17.1.9", "PUT", "/v1/agents/172.17.1.9/lease", `{"id": "nine"}`, &got)
	if vtep := got.Agent.VTEP.IP.String(); vtep != "44.128.0.9/20" {
		t.Errorf("after it was refused, the agent's VTEP is %s", vtep)
	}
}
