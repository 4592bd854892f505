package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/rights"
	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// tlsDir is where hosts keep their certificates in these tests.
const tlsDir = "/etc/dcos-overlay/tls"

// secured is the sample cluster with HTTPS and client certificates.
type secured struct {
	*scene.Scene
	t    *testing.T
	ca   *tlstest.Authority
	base string
}

// give writes a certificate for the host, its key, and the authorities to it.
func (s *secured) give(h *lab.Host, p tlstest.Pair, authorities ...*tlstest.Authority) {
	s.t.Helper()
	var ca []byte
	for _, a := range authorities {
		ca = append(ca, a.PEM...)
	}
	for name, data := range map[string][]byte{"cert.pem": p.Cert, "key.pem": p.Key, "ca.pem": ca} {
		check(s.t, h.WriteFile(s.t.Context(), path.Join(tlsDir, name), data))
	}
}

// agentFile are the fields of agent.json for this cluster.
func (s *secured) agentFile() map[string]any {
	return map[string]any{
		"master": s.base, "ca_file": tlsDir + "/ca.pem", "cert_file": tlsDir + "/cert.pem", "key_file": tlsDir + "/key.pem",
	}
}

// client calls from a host, with the pair's certificate; nil means none.
func (s *secured) client(h *lab.Host, p *tlstest.Pair) *http.Client {
	conf := &tls.Config{RootCAs: s.ca.Pool()}
	if p != nil {
		conf.Certificates = []tls.Certificate{p.TLS(s.t)}
	}
	transport := &http.Transport{DialContext: h.DialContext, TLSClientConfig: conf}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// call makes one call, and tells status, answer and the coordinator's
// certificate.
func (s *secured) call(c *http.Client, method, target, body string) (int, string, string, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.base+target, strings.NewReader(body))
	if err != nil {
		return 0, "", "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), resp.TLS.PeerCertificates[0].Subject.CommonName, err
}

// wants makes a call that must have that status, and say so.
func (s *secured) wants(c *http.Client, status int, says, method, target, body string) {
	s.t.Helper()
	code, text, _, err := s.call(c, method, target, body)
	if err != nil || code != status || !strings.Contains(text, says) {
		s.t.Errorf("%s %s: %d %s, %v; want %d and %q", method, target, code, text, err, status, says)
	}
}

func (s *secured) eventually(what string, f func() error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), hang)
	defer cancel()
	check(s.t, lab.Until(ctx, what, func(context.Context) error { return f() }))
}

// TestCertificates: hosts act for themselves by their certificates, containers
// of both kinds reach each other, nobody acts for another host, and all
// certificates are replaced, with their authority, while streams are open.
func TestCertificates(t *testing.T) {
	s := &secured{Scene: newScene(t), t: t, ca: tlstest.NewAuthority(t, "first authority")}
	ctx := t.Context()
	s.base = strings.Replace(s.Master.CoordinatorURL(), "http:", "https:", 1)
	pair := func(by *tlstest.Authority, name string, h *lab.Host) tlstest.Pair {
		return by.Issue(tlstest.Leaf{Name: name, IPs: []string{h.Addr.String()}})
	}
	ofA, ofB := pair(s.ca, "a", s.A), pair(s.ca, "b", s.B)
	operator := s.ca.Issue(tlstest.Leaf{Name: "operator", Organization: rights.Operators})
	s.give(s.Master, pair(s.ca, "first", s.Master), s.ca)
	check(t, s.Coordinator.Stop(ctx))
	s.Coordinator = must[*lab.Process](t)(s.Master.Start(ctx, "coordinator", "dcos-overlay-coordinator",
		"--tls-cert", tlsDir+"/cert.pem", "--tls-key", tlsDir+"/key.pem", "--tls-client-ca", tlsDir+"/ca.pem"))
	byA, byNobody, byOperator := s.client(s.A, &ofA), s.client(s.A, nil), s.client(s.Master, &operator)
	s.eventually("the coordinator to answer HTTPS", func() error {
		code, text, _, err := s.call(byNobody, http.MethodGet, "/readyz", "")
		if err == nil && code != http.StatusOK {
			err = errors.New(text)
		}
		return err
	})

	// A host with another one's certificate gets no lease, and is told why.
	s.give(s.B, ofA, s.ca)
	configure(t, s.Scene, s.B, s.agentFile())
	if c, err := s.B.MesosContainer(ctx, lab.MesosTask{ID: "early", Conf: scene.CNI("dcos")}); err == nil {
		t.Errorf("host b got %s by the certificate of host a", c.Result)
	} else if want := "acting for agent 172.17.0.3 needs a client certificate with 172.17.0.3 among its IP addresses"; !strings.Contains(err.Error(), want) {
		t.Errorf("the ADD says %v", err)
	}
	s.give(s.A, ofA, s.ca)
	s.give(s.B, ofB, s.ca)
	conf := must[[]byte](t)(s.AgentJSON(s.agentFile()))
	for _, h := range s.Agents() {
		must[*lab.Process](t)(h.StartDocker(ctx))
		s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, conf, "--interval", "1s"))
	}
	crowd := s.crowd()
	s.reachEachOther(crowd)
	traffic := must[*lab.Stream](t)(crowd[0].Stream(ctx, netip.AddrPortFrom(crowd[2].IP4, scene.Port), time.Hour))

	// Who may do what, across hosts.
	_, before, _, err := s.call(byA, http.MethodGet, "/v1/agents/172.17.0.3", "")
	check(t, err)
	const others = "needs a client certificate with 172.17.0.3 among its IP addresses"
	s.wants(byA, http.StatusForbidden, others, http.MethodPut, "/v1/agents/172.17.0.3/lease", `{"id": "x"}`)
	s.wants(byA, http.StatusForbidden, others, http.MethodPut, "/v1/agents/172.17.0.3/status", `{"overlays": []}`)
	s.wants(byA, http.StatusForbidden, others, http.MethodDelete, "/v1/agents/172.17.0.3/lease", "")
	s.wants(byA, http.StatusForbidden, "shown was CN=a (172.17.0.4)", http.MethodPut, "/v1/overlays/web", `{"subnet": "10.20.0.0/16", "prefix": 26}`)
	s.wants(byA, http.StatusForbidden, rights.Operators, http.MethodDelete, "/v1/overlays/dcos", "")
	s.wants(byA, http.StatusForbidden, rights.Operators, http.MethodPost, "/overlay-master/agents/delete", `{"agents": ["172.17.0.3"], "force": true}`)
	s.wants(byNobody, http.StatusUnauthorized, "none was shown", http.MethodGet, "/overlay-master/state", "")
	s.wants(byNobody, http.StatusOK, "dcos_overlay_coordinator_tls_files_ok 1", http.MethodGet, "/metrics", "")
	s.wants(byOperator, http.StatusCreated, "", http.MethodPut, "/v1/overlays/web", `{"subnet": "10.20.0.0/16", "prefix": 26}`)
	s.wants(byOperator, http.StatusOK, `"172.17.0.3"`, http.MethodGet, "/overlay-master/state", "")
	_, after, _, err := s.call(byA, http.MethodGet, "/v1/agents/172.17.0.3", "")
	check(t, err)
	if leased(before) != leased(after) || leased(before) == "" {
		t.Errorf("host b held %s, and now %s", before, after)
	}

	s.replaceAuthority(pair)

	if gap, err := traffic.Finish(ctx); err != nil {
		t.Errorf("the connection between containers broke: %v", err)
	} else {
		t.Logf("the longest gap of a connection between containers was %s", gap)
	}
	s.reachEachOther(crowd)
	for name, p := range s.Companions {
		if log := p.Log(); strings.Contains(log, "stream is away") || strings.Contains(log, "level=ERROR") {
			t.Errorf("companion %s lost its stream, or something failed:\n%s", name, log)
		}
	}
	for _, c := range crowd {
		check(t, c.Delete(ctx))
	}
}

// leased is the part of an agent's entry that names its VTEP.
func leased(entry string) string {
	_, rest, _ := strings.Cut(entry, `"vtep":`)
	out, _, _ := strings.Cut(rest, "}")
	return out
}

// crowd are a Mesos and a Docker container on each host, all serving.
func (s *secured) crowd() (out []*lab.Container) {
	s.t.Helper()
	for _, h := range s.Agents() {
		out = append(out,
			must[*lab.Container](s.t)(h.MesosContainer(s.t.Context(), lab.MesosTask{ID: "mesos", Conf: scene.CNI("dcos")})),
			must[*lab.Container](s.t)(h.DockerContainer(s.t.Context(), "docker", "dcos")))
	}
	for _, c := range out {
		must[*lab.Process](s.t)(c.Serve(s.t.Context(), scene.Port))
	}
	return out
}

func (s *secured) reachEachOther(crowd []*lab.Container) {
	s.t.Helper()
	for _, from := range crowd {
		for _, to := range crowd {
			if from == to {
				continue
			}
			s.eventually(fmt.Sprintf("%s to reach %s", from.IP4, to.IP4), func() error {
				seen, err := from.Dial(s.t.Context(), serverOf(to))
				if err == nil && seen.Addr() != from.IP4 {
					err = fmt.Errorf("seen as %s", seen)
				}
				return err
			})
		}
	}
}

// replaceAuthority does what an operator does: all trust both authorities, all
// get new certificates, all trust the new authority alone.
func (s *secured) replaceAuthority(pair func(*tlstest.Authority, string, *lab.Host) tlstest.Pair) {
	s.t.Helper()
	next := tlstest.NewAuthority(s.t, "second authority")
	old := []tlstest.Pair{pair(s.ca, "first", s.Master), pair(s.ca, "a", s.A), pair(s.ca, "b", s.B)}
	renewed := []tlstest.Pair{pair(next, "second", s.Master), pair(next, "a2", s.A), pair(next, "b2", s.B)}
	hosts := []*lab.Host{s.Master, s.A, s.B}
	agentOfNext := pair(next, "watcher", s.A)
	for i, h := range hosts {
		s.give(h, old[i], s.ca, next)
	}
	s.eventually("the second authority to count", func() error {
		code, text, _, err := s.call(s.client(s.A, &agentOfNext), http.MethodGet, "/v1/agents", "")
		if err == nil && code != http.StatusOK {
			err = errors.New(text)
		}
		return err
	})
	// Hosts look at their files with each call: they must trust the second
	// authority before they meet it.
	s.reported()
	for i, h := range hosts {
		s.give(h, renewed[i], s.ca, next)
	}
	s.ca = next
	s.eventually("the new certificate", func() error {
		_, _, by, err := s.call(s.client(s.A, nil), http.MethodGet, "/healthz", "")
		if err == nil && by != "second" {
			err = fmt.Errorf("the coordinator shows %q", by)
		}
		return err
	})
	s.reported()
	for i, h := range hosts {
		s.give(h, renewed[i], next)
	}
	s.reported()
}

// reported waits for two more reports of each host.
func (s *secured) reported() {
	s.t.Helper()
	c := s.client(s.A, new(s.ca.Issue(tlstest.Leaf{Name: "onlooker", Organization: rights.Operators})))
	for range 2 {
		began := time.Now()
		for _, h := range s.Agents() {
			s.eventually("a report of host "+h.Name, func() error {
				code, text, _, err := s.call(c, http.MethodGet, "/v1/agents/"+h.Addr.String(), "")
				if err != nil || code != http.StatusOK {
					return fmt.Errorf("%d %s, %w", code, text, err)
				}
				seen, ok := lastSeen(text)
				if !ok || seen.Before(began) || !strings.Contains(text, string(lease.StatusOK)) {
					return fmt.Errorf("it is as %s", text)
				}
				return nil
			})
		}
	}
}

// lastSeen is when an agent reported last, by its entry.
func lastSeen(entry string) (time.Time, bool) {
	_, rest, ok := strings.Cut(entry, `"last_seen":"`)
	text, _, closed := strings.Cut(rest, `"`)
	at, err := time.Parse(time.RFC3339, text)
	return at, ok && closed && err == nil
}
