package page

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/dcos/dcos-overlay/internal/tlsfile"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// TestDenied: where client certificates are asked for, a browser without one
// gets the page, which tells nothing of the cluster but what is needed; by an
// agent's certificate it shows all.
func TestDenied(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	f := ca.Issue(tlstest.Leaf{Name: "coordinator", IPs: []string{"127.0.0.1"}}).Write(t, t.TempDir(), ca)
	files, err := tlsfile.Open(tlsfile.Set{
		Cert: tlsfile.File{Name: "--tls-cert", Path: f.Cert}, Key: tlsfile.File{Name: "--tls-key", Path: f.Key},
		CA: tlsfile.File{Name: "--tls-client-ca", Path: f.CA},
	})
	check(t, err)
	c := newCrowd(t, files)
	c.join(5, []string{"dcos"})
	b := newBrowser(t)
	b.size(wide, high)
	b.scheme("light")
	b.trustAll()

	b.open(c.url)
	b.awaitText("#link", "No access")
	contains(t, "the notice", b.text("#notice"),
		"GET /v1/overview needs the client certificate of an agent", "or an operator (organisation dcos-overlay:operators), and none was shown", "Import a certificate that may read into this browser")
	if rows := b.texts("tbody tr"); len(rows) > 0 {
		t.Errorf("without certificate there are %q", rows)
	}
	b.complaint("401")
	b.accessible("without certificate")
	b.picture("page-denied", false)

	b.open(shows(t, c.url, ca, ca.Issue(tlstest.Leaf{Name: "agent", IPs: []string{"172.20.0.11"}}).TLS(t)))
	b.awaitText("#found", "5 agents")
	b.await("the stream", `document.getElementById("link").dataset.state === "live"`)
	if !value[bool](b, `document.getElementById("notice").hidden`) {
		t.Errorf("with a certificate the notice says %q", b.text("#notice"))
	}
}

// shows is where a browser is that shows the certificate: to import one into a
// browser needs more of it than a test can do, so a relay shows it.
func shows(t *testing.T, to string, ca *tlstest.Authority, cert tls.Certificate) string {
	t.Helper()
	target, err := url.Parse(to)
	check(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert}}}
	relay := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
	})
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(relay.CloseClientConnections)
	t.Cleanup(relay.Close)
	return relay.URL
}
