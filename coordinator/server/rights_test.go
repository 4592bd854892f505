package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/rights"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/tlsfile"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// guarded is a world that asks for certificates of ca.
func guarded(t testing.TB, ca *tlstest.Authority, change ...func(*Options)) *world {
	t.Helper()
	f := ca.Issue(tlstest.Leaf{Name: "coordinator", IPs: []string{"127.0.0.1"}}).Write(t, t.TempDir(), ca)
	return newWorld(t, append(change, func(o *Options) { o.TLS = open(t, f) })...)
}

func open(t testing.TB, f tlstest.Files) *tlsfile.Reader {
	t.Helper()
	r, err := tlsfile.Open(tlsfile.Set{
		Cert: tlsfile.File{Name: "--tls-cert", Path: f.Cert}, Key: tlsfile.File{Name: "--tls-key", Path: f.Key},
		CA: tlsfile.File{Name: "--tls-client-ca", Path: f.CA},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// as makes a call with the certificate; nil means none.
func (w *world) as(cert *x509.Certificate, method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.TLS = &tls.ConnectionState{}
	if cert != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{cert}
	}
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	return rec
}

// row is one of the manual's table: who may make which calls.
type row struct {
	calls                 []string
	none, agent, operator string
}

func rowsOfManual(t *testing.T) (rows []row) {
	t.Helper()
	text, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n### Who may do what\n")
	section, _, ended := strings.Cut(section, "\n#")
	if !ok || !ended {
		t.Fatal("the manual does not say who may do what")
	}
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || !strings.Contains(cells[0], "`") {
			continue
		}
		r := row{none: strings.TrimSpace(cells[1]), agent: strings.TrimSpace(cells[2]), operator: strings.TrimSpace(cells[3])}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[0], -1) {
			r.calls = append(r.calls, m[1])
		}
		rows = append(rows, r)
	}
	return rows
}

// TestWhoMayDoWhat plays the manual's table: every call, by every kind of
// caller, and with no call left out.
func TestWhoMayDoWhat(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	w := guarded(t, ca)
	leaf := func(l tlstest.Leaf) *x509.Certificate { return ca.Issue(l).TLS(t).Leaf }
	agent := leaf(tlstest.Leaf{Name: "agent", IPs: []string{"10.0.0.1"}})
	operator := leaf(tlstest.Leaf{Name: "operator", Organization: rights.Operators})
	other := leaf(tlstest.Leaf{Name: "other", Organization: "others", DNS: []string{"10.0.0.1"}})
	stranger := tlstest.NewAuthority(t, "stranger").Issue(tlstest.Leaf{Organization: rights.Operators}).TLS(t).Leaf
	expired := leaf(tlstest.Leaf{Organization: rights.Operators, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(-time.Minute)})

	let := func(cert *x509.Certificate, call, ip string) string {
		t.Helper()
		method, path, _ := strings.Cut(call, " ")
		path = strings.NewReplacer("{ip}", ip, "{name}", "dcos").Replace(path)
		rec := w.as(cert, method, path, "")
		var body api.ErrorBody
		_ = json.Unmarshal(rec.Body.Bytes(), &body)
		refused := body.Error != nil && (body.Error.Code == api.CodeUnauthenticated || body.Error.Code == api.CodeForbidden)
		if (rec.Code == 401 || rec.Code == 403) != refused {
			t.Errorf("%s: %d %s", call, rec.Code, rec.Body)
		}
		if refused && (rec.Code == 401) != (cert == nil || cert == stranger || cert == expired) {
			t.Errorf("%s: %d %s", call, rec.Code, rec.Body)
		}
		if refused {
			return "no"
		}
		return "yes"
	}
	var documented []string
	for _, r := range rowsOfManual(t) {
		for _, call := range r.calls {
			documented = append(documented, call)
			own := let(agent, call, "10.0.0.1")
			if others := let(agent, call, "10.0.0.2"); own == "yes" && others == "no" {
				own = "its own"
			}
			got := row{r.calls, let(nil, call, "10.0.0.1"), own, let(operator, call, "10.0.0.2")}
			if got.none != r.none || got.agent != r.agent || got.operator != r.operator {
				t.Errorf("%s: the manual says %s, %s, %s; it is %s, %s, %s", call, r.none, r.agent, r.operator, got.none, got.agent, got.operator)
			}
			for _, cert := range []*x509.Certificate{other, stranger, expired} {
				if got := let(cert, call, "10.0.0.1"); got != r.none {
					t.Errorf("%s: to %s the answer is %s, and without certificate it is %s", call, cert.Subject, got, r.none)
				}
			}
		}
	}
	there := []string{"GET /metrics"}
	for _, r := range w.calls() {
		there = append(there, r.method+" "+strings.Replace(r.path, "{$}", "", 1))
	}
	slices.Sort(there)
	slices.Sort(documented)
	if !slices.Equal(there, documented) {
		t.Errorf("there are\n%q, and the manual has\n%q", there, documented)
	}
}

// TestRefusalsSayWhatIsNeeded, and what was shown.
func TestRefusalsSayWhatIsNeeded(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	w := guarded(t, ca)
	agent := ca.Issue(tlstest.Leaf{Name: "agent", IPs: []string{"10.0.0.1", "fd00::1"}}).TLS(t).Leaf
	claim := `{"id": "a", "overlays": ["dcos"]}`
	for path, id := range map[string]string{"/v1/agents/10.0.0.1/lease": "one", "/v1/agents/fd00::1/lease": "six", "/v1/agents/::ffff:10.0.0.1/lease": "one"} {
		if rec := w.as(agent, "PUT", path, strings.Replace(claim, `"a"`, `"`+id+`"`, 1)); rec.Code != 200 {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
	wantError(t, w.as(agent, "PUT", "/v1/agents/10.0.0.2/lease", claim), 403, api.CodeForbidden,
		"acting for agent 10.0.0.2 needs a client certificate with 10.0.0.2 among its IP addresses (subject alternative names), or an operator's; shown was CN=agent (10.0.0.1, fd00::1)")
	wantError(t, w.as(agent, "DELETE", "/v1/overlays/dcos", ""), 403, api.CodeForbidden,
		"DELETE /v1/overlays/dcos needs the client certificate of an operator (organisation dcos-overlay:operators); shown was CN=agent (10.0.0.1, fd00::1)")
	wantError(t, w.as(nil, "GET", "/v1/agents", ""), 401, api.CodeUnauthenticated,
		"GET /v1/agents needs the client certificate of an agent (its IP address as subject alternative name) or an operator (organisation dcos-overlay:operators), and none was shown: see cert_file and key_file in agent.json")
	// The id of a host that is silent gives nobody else its lease.
	moved := func(name string, ips ...string) *httptest.ResponseRecorder {
		cert := ca.Issue(tlstest.Leaf{Name: name, IPs: ips}).TLS(t).Leaf
		return w.as(cert, "PUT", "/v1/agents/10.0.0.7/lease", `{"id": "one"}`)
	}
	wantError(t, moved("thief", "10.0.0.7"), 403, api.CodeForbidden,
		"this agent's id has a lease at 10.0.0.1: moving it needs a client certificate with 10.0.0.1, too, among its IP addresses, or an operator's; for a new lease, remove agent-id and lease.json; shown was CN=thief (10.0.0.7)")
	if rec := moved("owner", "10.0.0.7", "10.0.0.1"); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"9.0.`) {
		t.Errorf("the owner at its new address: %d %s", rec.Code, rec.Body)
	}
	wantError(t, w.as(nil, "GET", "/nowhere", ""), 404, api.CodeNotFound, "there is nothing at /nowhere: / lists what there is")
}
