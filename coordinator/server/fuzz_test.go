package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/rights"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// patientRecorder can do what a stream asks of its connection.
type patientRecorder struct{ *httptest.ResponseRecorder }

func (patientRecorder) SetReadDeadline(time.Time) error  { return nil }
func (patientRecorder) SetWriteDeadline(time.Time) error { return nil }

// FuzzCalls: no method, path, query, header or body, by whichever caller, may
// do more than be refused.
func FuzzCalls(f *testing.F) {
	ca := tlstest.NewAuthority(f, "ca")
	issue := func(l tlstest.Leaf) []*x509.Certificate { return []*x509.Certificate{ca.Issue(l).TLS(f).Leaf} }
	callers := [][]*x509.Certificate{
		nil,
		issue(tlstest.Leaf{IPs: []string{"10.0.0.1"}}),
		issue(tlstest.Leaf{Organization: rights.Operators}),
		{tlstest.NewAuthority(f, "stranger").Issue(tlstest.Leaf{}).TLS(f).Leaf},
	}
	worlds := []*world{newWorld(f), guarded(f, ca)}
	bodies := []string{
		"", "null", "[]", "{}", `{"id": "a", "all_overlays": true}`, `{"agents": ["10.0.0.1"], "force": true}`,
		`{"subnet": "10.1.0.0/16", "prefix": 24}`, `{"overlays": [{"name": "dcos", "state": {"status": "STATUS_OK"}}]}`,
		`{"agents": [{"ip": "10.0.0.1", "overlays": [{"info": {"name": "dcos"}, "subnet": "9.0.7.0/24"}]}]}`,
	}
	for _, r := range worlds[0].calls() {
		path := strings.NewReplacer("{ip}", "10.0.0.1", "{name}", "x", "{$}", "").Replace(r.path)
		for i, body := range bodies {
			f.Add(r.method, path, "force=true", "", uint8(i), []byte(body))
		}
	}
	for _, seed := range []struct{ method, path, query, header string }{
		{"GET", "/v1/agents", "watch=true", ""},
		{"GET", "/v1/agents", "watch=true&since=9223372036854775807&epoch=%00", ""},
		{"HEAD", "/v1/agents", "watch=1&status=1", ""},
		{"GET", "/overlay-master/state", "jsonp=a", "gzip"},
		{"GET", "/overlay-master/state", "jsonp=%zz;&&==", "br, *;q=0"},
		{"GET", "/v1/overview", "q=%22&limit=-1&offset=99999999999999999999&sort=ip", "text/html"},
		{"PUT", "/v1/agents/::ffff:10.0.0.1/lease", "", ""},
		{"PUT", "/v1/agents/%2e%2e/lease", "", ""},
		{"PUT", "/v1/overlays/a\x00b/", "", ""},
		{"DELETE", "/v1/agents/10.0.0.1/lease", "overlay=a&overlay=b", ""},
		{"GET", "//v1//agents/../..", "", ""},
		{"CONNECT", "", "", ""},
		{"OPTIONS", "*", "", ""},
		{"TRACE", "/metrics", "", ""},
		{"G\x00T", "/page/../../etc/passwd", "\n", "\r\n"},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.header, uint8(2), []byte("{}"))
	}
	f.Fuzz(func(t *testing.T, method, path, query, header string, by uint8, body []byte) {
		for i, w := range worlds {
			// A stream has no end of its own.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if strings.Contains(query, "watch") {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
			}
			r := (&http.Request{
				Method: method, URL: &url.URL{Path: path, RawQuery: query}, Host: "coordinator", RemoteAddr: "10.0.0.1:4711",
				Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)),
				Header: http.Header{"Accept": {header}, "Accept-Encoding": {header}, "If-None-Match": {header}, "Sec-Fetch-Site": {header}},
				Body:   io.NopCloser(bytes.NewReader(body)),
				TLS:    &tls.ConnectionState{PeerCertificates: callers[int(by)%len(callers)]},
			}).WithContext(ctx)
			rec := patientRecorder{httptest.NewRecorder()}
			w.Handler().ServeHTTP(rec, r)
			if rec.Code >= 500 && ctx.Err() == nil {
				t.Errorf("world %d: %q %q ? %q, body %q: %d %s", i, method, path, query, body, rec.Code, rec.Body)
			}
			cancel()
		}
	})
}
