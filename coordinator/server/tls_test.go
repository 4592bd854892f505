package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/rights"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// logs is a log that may be read while it is written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func logTo(l *logs) func(*Options) {
	return func(o *Options) { o.Log = slog.New(slog.NewTextHandler(l, nil)) }
}

// https is a client that shows the pair's certificate; nil means none.
func https(t testing.TB, ca *tlstest.Authority, p *tlstest.Pair) *http.Client {
	t.Helper()
	conf := &tls.Config{RootCAs: ca.Pool()}
	if p != nil {
		conf.Certificates = []tls.Certificate{p.TLS(t)}
	}
	transport := &http.Transport{TLSClientConfig: conf}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// served makes one call, and tells the status and the server's certificate.
func served(t testing.TB, c *http.Client, url string) (int, *x509.Certificate) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// A connection is used again only if its answer was read to the end.
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.TLS.PeerCertificates[0]
}

func TestHTTPS(t *testing.T) {
	ca, next := tlstest.NewAuthority(t, "ca"), tlstest.NewAuthority(t, "next")
	dir := t.TempDir()
	first := ca.Issue(tlstest.Leaf{Name: "first", IPs: []string{"127.0.0.1"}})
	f := first.Write(t, dir, ca)
	var log logs
	w := newWorld(t, logTo(&log), func(o *Options) { o.TLS = open(t, f) })
	w.look = 10 * time.Millisecond
	base, stop := w.serve()
	defer stop()
	base = strings.Replace(base, "http:", "https:", 1)
	agent := ca.Issue(tlstest.Leaf{Name: "agent", IPs: []string{"10.0.0.1"}})
	late := next.Issue(tlstest.Leaf{Name: "late", IPs: []string{"10.0.0.2"}})

	kept, newcomer := https(t, ca, &agent), https(t, ca, &late)
	if code, cert := served(t, kept, base+"/v1/agents"); code != 200 || cert.Subject.CommonName != "first" {
		t.Errorf("with a certificate: %d by %s", code, cert.Subject)
	}
	if code, _ := served(t, https(t, ca, nil), base+"/v1/agents"); code != 401 {
		t.Errorf("without: %d", code)
	}
	if code, _ := served(t, https(t, ca, nil), base+"/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if code, _ := served(t, newcomer, base+"/v1/agents"); code != 401 {
		t.Errorf("by a certificate of another authority: %d", code)
	}
	old := &tls.Config{RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	if c, err := tls.Dial("tcp", strings.TrimPrefix(base, "https://"), old); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 is spoken")
	}
	if c, err := tls.Dial("tcp", strings.TrimPrefix(base, "https://"), &tls.Config{RootCAs: ca.Pool(), NextProtos: []string{"h2", "http/1.1"}}); err != nil {
		t.Error(err)
	} else if c.Close(); c.ConnectionState().NegotiatedProtocol == "h2" {
		t.Error("HTTP/2 is spoken, whose streams no bound is set to")
	}

	// Broken files change nothing, and the log tells.
	if err := os.WriteFile(f.Cert, []byte("half a"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.until("the log tells of broken files", func() bool {
		return strings.Contains(log.String(), "level=ERROR msg=\"the TLS files have changed and can't be used")
	})
	if code, cert := served(t, https(t, ca, &agent), base+"/v1/agents"); code != 200 || cert.Subject.CommonName != "first" {
		t.Errorf("with broken files: %d by %s", code, cert.Subject)
	}
	if rec := w.call("", "GET", "/metrics", ""); !strings.Contains(rec.Body.String(), "dcos_overlay_coordinator_tls_files_ok 0") {
		t.Error("the metric tells of no broken files")
	}

	// A new certificate, and another authority for callers. Connections that
	// are open see the second, too.
	ca.Issue(tlstest.Leaf{Name: "second", IPs: []string{"127.0.0.1"}}).Write(t, dir, next)
	w.until("the new authority counts", func() bool {
		code, _ := served(t, newcomer, base+"/v1/agents")
		return code == 200
	})
	if code, cert := served(t, https(t, ca, nil), base+"/readyz"); code != 200 || cert.Subject.CommonName != "second" {
		t.Errorf("after the renewal: %d by %s", code, cert.Subject)
	}
	if code, cert := served(t, kept, base+"/v1/agents"); code != 401 || cert.Subject.CommonName != "first" {
		t.Errorf("over the old connection: %d by %s; its authority is gone", code, cert.Subject)
	}
	w.until("the log tells of the renewal", func() bool { return strings.Contains(log.String(), "are used as they are now") })
	// It ends in an hour.
	if n := strings.Count(log.String(), "expires soon"); n != 2 {
		t.Errorf("of two certificates that expire soon the log tells %d times:\n%s", n, &log)
	}
	if rec := w.call("", "GET", "/metrics", ""); !strings.Contains(rec.Body.String(), "dcos_overlay_coordinator_tls_files_ok 1") ||
		!strings.Contains(rec.Body.String(), "dcos_overlay_coordinator_certificate_expiry_timestamp_seconds 1.") {
		t.Error("the metrics do not tell of the certificate")
	}
}

// TestStreamEndsWithItsCertificate, and the reader may come again with a new
// one.
func TestStreamEndsWithItsCertificate(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	w := guarded(t, ca)
	base, stop := w.serve()
	defer stop()
	// A certificate's times are whole seconds.
	short := ca.Issue(tlstest.Leaf{Name: "short", Organization: rights.Operators, NotAfter: time.Now().Add(2 * time.Second)})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.Replace(base, "http:", "https:", 1)+"/v1/agents?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := https(t, ca, &short).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	l := newLines(t, resp)
	l.until(api.EventSynced)
	l.until(api.EventPing)
	for l.scan.Scan() {
	}
	if err := l.scan.Err(); err != nil {
		t.Errorf("the stream was broken off: %v", err)
	}
}

// TestPlainHTTPToHTTPS gets a word, and not silence.
func TestPlainHTTPToHTTPS(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	w := guarded(t, ca)
	base, stop := w.serve()
	defer stop()
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	text := make([]byte, 1024)
	n, _ := c.Read(text)
	if !strings.HasPrefix(string(text[:n]), "HTTP/1.0 400 Bad Request") {
		t.Errorf("the answer is %q", text[:n])
	}
}
