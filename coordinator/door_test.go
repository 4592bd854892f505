package main

import (
	"crypto/tls"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// TestDoorRefused: what is wrong with TLS files or bounds is said at once, and
// no restart is worth a try.
func TestDoorRefused(t *testing.T) {
	binary := build(t)
	ca := tlstest.NewAuthority(t, "ca")
	good := ca.Issue(tlstest.Leaf{Name: "good"}).Write(t, t.TempDir(), ca)
	expired := ca.Issue(tlstest.Leaf{Name: "old", NotAfter: time.Now().Add(-time.Minute)}).Write(t, t.TempDir(), ca)
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"no key", []string{"--tls-cert", good.Cert}, "--tls-cert and --tls-key: one is of no use without the other; set both or none"},
		{"no certificate", []string{"--tls-client-ca", good.CA}, "--tls-client-ca: client certificates need HTTPS: set --tls-cert and --tls-key, too"},
		{"missing", []string{"--tls-cert", good.Cert + "x", "--tls-key", good.Key}, "read --tls-cert: stat " + good.Cert + "x: no such file or directory"},
		{"another key", []string{"--tls-cert", good.Cert, "--tls-key", expired.Key}, "--tls-cert " + good.Cert + " and --tls-key " + expired.Key + ": tls: private key does not match public key"},
		{"expired", []string{"--tls-cert", expired.Cert, "--tls-key", expired.Key}, "--tls-cert " + expired.Cert + ": the certificate expired at "},
		{"no authority", []string{"--tls-cert", good.Cert, "--tls-key", good.Key, "--tls-client-ca", good.Key}, "--tls-client-ca " + good.Key + ": it holds no PEM certificate"},
		{"no connections", []string{"--max-connections", "0"}, "--max-connections, --max-connections-per-host and --max-streams must be positive"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, stderr := runOnce(t, binary, append(test.args, "--data-dir", filepath.Join(t.TempDir(), "data"))...)
			if code != exitUsage || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, want %d, with %q in:\n%s", code, exitUsage, test.want, stderr)
			}
		})
	}
}

// TestDoorHTTPS: the built program answers HTTPS by its flags.
func TestDoorHTTPS(t *testing.T) {
	binary := build(t)
	ca := tlstest.NewAuthority(t, "ca")
	f := ca.Issue(tlstest.Leaf{Name: "coordinator", IPs: []string{"127.0.0.1"}}).Write(t, t.TempDir(), ca)
	own := ca.Issue(tlstest.Leaf{Name: "agent", IPs: []string{"10.0.0.1"}}).Write(t, t.TempDir())
	p := start(t, binary, "--data-dir", t.TempDir(), "--config", masterJSON, "--tls-cert", f.Cert, "--tls-key", f.Key, "--tls-client-ca", f.CA)
	base := strings.Replace(p.base, "http:", "https:", 1)
	c, err := apiclient.New(apiclient.Options{Masters: []string{base}, CAFile: f.CA, CertFile: own.Cert, KeyFile: own.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err = c.Agents(t.Context()); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	anonymous := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}, Timeout: 10 * time.Second}
	defer anonymous.CloseIdleConnections()
	for path, want := range map[string]int{"/healthz": 200, "/metrics": 200, "/v1/agents": 401} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := anonymous.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, &p.log)
	}
}
