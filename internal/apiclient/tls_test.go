package apiclient

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// httpsServer serves with the pair, asks for client certificates, and answers
// with the name of the one that was shown.
func httpsServer(t *testing.T, p tlstest.Pair, auth tls.ClientAuthType) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"name": name})
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{p.TLS(t)}, ClientAuth: auth}
	s.Config.ErrorLog = log.New(t.Output(), "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func tlsClient(t *testing.T, f tlstest.Files, masters ...string) *Client {
	t.Helper()
	c, err := New(Options{Masters: masters, CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestTLSErrorsSayWhatToDo(t *testing.T) {
	ca, other := tlstest.NewAuthority(t, "ca"), tlstest.NewAuthority(t, "other")
	good := ca.Issue(tlstest.Leaf{Name: "good", IPs: []string{"127.0.0.1"}})
	f := ca.Issue(tlstest.Leaf{Name: "agent", IPs: []string{"10.0.0.1"}}).Write(t, t.TempDir(), ca)
	plain := server(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") })
	well := httpsServer(t, good, tls.RequestClientCert).URL
	for _, test := range []struct {
		name, master string
		files        tlstest.Files
		want         string
	}{
		{"unknown authority", httpsServer(t, other.Issue(tlstest.Leaf{IPs: []string{"127.0.0.1"}}), tls.NoClientCert).URL, f,
			`its certificate, issued by "CN=other", is from none of the authorities in ca_file: set ca_file to a file with that authority's certificate`},
		{"no ca_file", well, tlstest.Files{},
			`its certificate, issued by "CN=ca", is from none of the authorities of this system: set ca_file to a file with that authority's certificate`},
		{"expired", httpsServer(t, ca.Issue(tlstest.Leaf{IPs: []string{"127.0.0.1"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute)}), tls.NoClientCert).URL, f,
			"its certificate does not count now (x509: certificate has expired or is not yet valid: current time"},
		{"another name", strings.Replace(well, "127.0.0.1", "localhost", 1), f,
			`its certificate is for other names (x509: certificate is not valid for any names, but wanted to match localhost): name it in "master" as its certificate does, or issue it one with this name`},
		{"https to http", strings.Replace(plain, "http:", "https:", 1), f,
			`it speaks HTTP and not HTTPS: write http:// in "master", or start it with --tls-cert and --tls-key`},
		{"http to https", strings.Replace(well, "https:", "http:", 1), f, `it speaks HTTPS and not HTTP: write https:// in "master"`},
		{"a handshake that the other end breaks off", httpsServer(t, good, tls.RequireAndVerifyClientCert).URL, tlstest.Files{CA: f.CA},
			"it refuses the connection (tls: certificate required): is the certificate in cert_file one of its authorities', and not expired?"},
		{"nothing is wrong", well, f, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := tlsClient(t, test.files, test.master).Agents(t.Context())
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), test.master+": "+test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v,\nwant %s", err, test.want)
			}
		})
	}
}

func TestNewRefusesBadFiles(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	f := ca.Issue(tlstest.Leaf{}).Write(t, t.TempDir(), ca)
	for want, o := range map[string]Options{
		"read ca_file: stat ":    {CAFile: f.CA + "x"},
		"ca_file " + f.Key:       {CAFile: f.Key},
		"cert_file and key_file": {CertFile: f.Cert},
		"key_file " + f.CA:       {CertFile: f.Cert, KeyFile: f.CA},
	} {
		o.Masters = []string{"https://127.0.0.1:1"}
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestFilesThatChange: a client that lives for months shows what the files hold
// now, and trusts whom they name now.
func TestFilesThatChange(t *testing.T) {
	ca, next := tlstest.NewAuthority(t, "ca"), tlstest.NewAuthority(t, "next")
	dir := t.TempDir()
	f := ca.Issue(tlstest.Leaf{Name: "first"}).Write(t, dir, ca)
	before := httpsServer(t, ca.Issue(tlstest.Leaf{IPs: []string{"127.0.0.1"}}), tls.RequestClientCert).URL
	after := httpsServer(t, next.Issue(tlstest.Leaf{IPs: []string{"127.0.0.1"}}), tls.RequestClientCert).URL
	c := tlsClient(t, f, before)
	shown := func(c *Client) (string, error) {
		var got struct{ Name string }
		err := c.call(t.Context(), http.MethodGet, api.PathAgents, nil, &got)
		return got.Name, err
	}
	if name, err := shown(c); name != "first" || err != nil {
		t.Fatalf("shown is %q, %v", name, err)
	}

	if err := os.WriteFile(f.Cert, []byte("half a"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "the broken file is noticed", func() bool { _, err := c.files.Current(); return err != nil })
	if name, err := shown(c); name != "first" || err != nil {
		t.Errorf("with a broken file, shown is %q, %v", name, err)
	}
	c.masters = []string{after}
	if _, err := shown(c); err == nil || !strings.Contains(err.Error(), "(files that have changed are not in use: cert_file "+filepath.Join(dir, "cert.pem")) {
		t.Errorf("of the broken file the error says nothing: %v", err)
	}

	ca.Issue(tlstest.Leaf{Name: "second"}).Write(t, dir, next)
	until(t, "the new files are in use", func() bool { name, err := shown(c); return name == "second" && err == nil })
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestBusyGoesToTheNext: a coordinator that is full is no reason to fail.
func TestBusyGoesToTheNext(t *testing.T) {
	full := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"error":{"code":"busy","message":"there are 2 streams"}}`)
	})
	well := server(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	if _, err := client(t, full, well).Agents(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := client(t, full).Agents(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}
