package server

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/api"
)

// browse is a GET as a browser makes it.
func (w *world) browse(target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	return rec
}

func TestPage(t *testing.T) {
	w := newWorld(t)
	index := w.browse("/?q=anything")
	if index.Code != http.StatusOK || index.Header().Get("Content-Type") != "text/html; charset=utf-8" || index.Header().Get("Vary") != "Accept" {
		t.Fatalf("the page: %d %v", index.Code, index.Header())
	}
	if got := w.call("", "GET", "/", "").Body.String(); got != listing {
		t.Errorf("a program gets %s", got)
	}
	files := regexp.MustCompile(`"(/page/[^"]+)"`).FindAllStringSubmatch(index.Body.String(), -1)
	if len(files) < 4 {
		t.Fatalf("the page has %d files only", len(files))
	}
	for _, f := range files {
		rec := w.browse(f[1])
		if rec.Code != http.StatusOK || rec.Body.Len() == 0 {
			t.Errorf("%s: %d", f[1], rec.Code)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self';", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache",
		} {
			if got := rec.Header().Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q", f[1], name, got)
			}
		}
		again := w.browse(f[1], "If-None-Match", `"old", `+rec.Header().Get("ETag"))
		if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%s, which the browser has: %d, %d bytes", f[1], again.Code, again.Body.Len())
		}
	}
	wantError(t, w.browse("/page/nothing.js"), 404, api.CodeNotFound, "there is nothing at /page/nothing.js: / lists what there is")
	wantError(t, w.browse("/page/..%2fpage.go"), 404, api.CodeNotFound, "there is nothing at /page/../page.go: / lists what there is")
}

func TestOverview(t *testing.T) {
	w := newWorld(t)
	for _, ip := range []string{"172.17.0.2", "172.17.0.3", "172.17.0.4"} {
		w.ok(ip, "PUT", "/v1/agents/"+ip+"/lease", `{"id": "`+ip+`", "overlays": ["dcos"]}`, nil)
	}
	w.ok("172.17.0.2", "PUT", "/v1/agents/172.17.0.2/status", `{"overlays": [{"name": "dcos", "state": {"status": "STATUS_OK"},
		"addresses": {"mesos": {"used": 3, "free": 120}, "docker": {"used": 100, "free": 25}}}]}`, nil)
	w.ok("172.17.0.3", "PUT", "/v1/agents/172.17.0.3/status", `{"overlays": [{"name": "dcos", "state": {"status": "STATUS_FAILED", "error": "no Docker"}}]}`, nil)
	var all api.Overview
	w.ok("", "GET", "/v1/overview", "", &all)
	if all.Total != 3 || all.Matching != 3 || len(all.Agents) != 3 || all.Revision == 0 || all.Epoch == "" || all.Now.IsZero() ||
		all.States[api.AgentOK] != 1 || all.States[api.AgentFailed] != 1 || all.States[api.AgentSilent] != 1 {
		t.Errorf("got %+v", all)
	}
	if all.Overlays[0].Holders != 3 || all.Overlays[0].Subnets.Leased != 3 || all.VTEPs.Addresses.Leased != 3 || all.VTEPs.Addresses6.Leased != 3 {
		t.Errorf("got %+v, %+v", all.Overlays, all.VTEPs)
	}
	if full := all.Agents[0].Fullest; full == nil || full.Containerizer != "docker" || full.Used != 100 || full.Free != 25 {
		t.Errorf("the fullest part is %+v", full)
	}
	if a := all.Agents[1]; a.State != api.AgentFailed || a.Overlay != "dcos" || a.Reason != "no Docker" || a.Fullest != nil {
		t.Errorf("got %+v", a)
	}
	// What is new is there at once.
	w.ok("172.17.0.3", "PUT", "/v1/agents/172.17.0.3/status", `{"overlays": [{"name": "dcos", "state": {"status": "STATUS_OK"}}]}`, nil)
	var ok api.Overview
	w.until("the agent is well", func() bool {
		w.ok("", "GET", "/v1/overview?state=ok&sort=-ip&limit=1", "", &ok)
		return ok.Matching == 2
	})
	if len(ok.Agents) != 1 || ok.Agents[0].IP.String() != "172.17.0.3" || ok.Total != 3 {
		t.Errorf("got %+v", ok)
	}
	wantError(t, w.call("", "GET", "/v1/overview?limit=9999", ""), 400, api.CodeInvalid, `limit is "9999": it must be a number from 1 to 500`)
	var one api.AgentResponse
	w.ok("", "GET", "/v1/agents/172.17.0.2", "", &one)
	if len(one.Entry.Overlays) != 1 || one.Entry.Overlays[0].MesosBridge.Name != "m-dcos" {
		t.Errorf("the entry is %+v", one.Entry)
	}
}
