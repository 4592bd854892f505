package integration

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// TestDoctorOnTLS: doctor looks at the certificates of a coordinator and of the
// host itself, and at the coordinator's clock.
func TestDoctorOnTLS(t *testing.T) {
	s := &secured{Scene: newScene(t), t: t, ca: tlstest.NewAuthority(t, "authority")}
	ctx := t.Context()
	s.base = strings.Replace(s.Master.CoordinatorURL(), "http:", "https:", 1)
	until := func(h *lab.Host, left time.Duration) tlstest.Pair {
		return s.ca.Issue(tlstest.Leaf{Name: h.Name, IPs: []string{h.Addr.String()}, NotAfter: time.Now().Add(left)})
	}
	const short, long = time.Hour, 100 * 24 * time.Hour
	s.give(s.Master, until(s.Master, short), s.ca)
	check(t, s.Coordinator.Stop(ctx))
	s.Coordinator = must[*lab.Process](t)(s.Master.Start(ctx, "coordinator", "dcos-overlay-coordinator",
		"--tls-cert", tlsDir+"/cert.pem", "--tls-key", tlsDir+"/key.pem", "--tls-client-ca", tlsDir+"/ca.pem"))
	nobody := s.client(s.Master, nil)
	s.eventually("the coordinator to answer HTTPS", func() error {
		code, text, _, err := s.call(nobody, http.MethodGet, "/readyz", "")
		if err == nil && code != http.StatusOK {
			err = errors.New(text)
		}
		return err
	})
	late := s.lateClock(until(s.Master, long))
	s.give(s.A, until(s.A, long), s.ca)
	file := s.agentFile()
	file["master"] = []string{s.base, late}
	configure(t, s.Scene, s.A, file)

	says := func(want ...string) {
		t.Helper()
		s.eventually(fmt.Sprintf("doctor to say %q", want), func() error {
			lines, err := doctor(ctx, s.A)
			out := text(lines, false)
			for _, w := range want {
				if err == nil && !strings.Contains(out, w) {
					err = fmt.Errorf("%q is not in:\n%s", w, out)
				}
			}
			return err
		})
	}
	says("ok   coordinator "+s.base+": ready", "warn certificate of "+s.base+": it is good until", "ok   clock: that of "+s.base,
		"ok   coordinator "+late+": ready", "ok   certificate of "+late+": it is good until", "warn clock: that of "+late+" differs by 5m0s", "NTP",
		"ok   client certificate: it is good until")
	// What is replaced is read again without a restart.
	s.give(s.Master, until(s.Master, long), s.ca)
	s.give(s.A, until(s.A, short), s.ca)
	says("ok   certificate of "+s.base, "warn client certificate: it is good until")
	s.give(s.A, until(s.A, -time.Minute), s.ca)
	says("fail coordinator "+s.base+": no answer: it is not asked: cert_file "+tlsDir+"/cert.pem: the certificate expired",
		"fail client certificate: it expired at", "companion: none runs on this host")
	// One of an authority that is not known is no answer, and the cause is told.
	other := tlstest.NewAuthority(t, "another authority")
	s.give(s.A, until(s.A, long), other)
	says("fail coordinator "+s.base+": no answer", "unknown authority")
}

// lateClock is the URL of a coordinator whose clock is five minutes behind: it
// passes calls on to the real one.
func (s *secured) lateClock(own tlstest.Pair) string {
	s.t.Helper()
	target, err := url.Parse(s.base)
	check(s.t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: s.client(s.Master, nil).Transport,
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Date", time.Now().Add(-5*time.Minute).UTC().Format(http.TimeFormat))
			return nil
		},
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: hang, TLSConfig: &tls.Config{Certificates: []tls.Certificate{own.TLS(s.t)}}}
	var listener net.Listener
	check(s.t, s.Master.Inside(func() error {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.Master.Addr, 0)))
		return err
	}))
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	s.t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("the late coordinator: %v", err)
		}
	})
	return "https://" + listener.Addr().String()
}
