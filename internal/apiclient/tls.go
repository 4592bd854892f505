package apiclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/tlsfile"
)

// files are the TLS files in the words of agent.json; nil when none is set.
func (o Options) files() (*tlsfile.Reader, error) {
	if o.CAFile == "" && o.CertFile == "" && o.KeyFile == "" {
		return nil, nil
	}
	return tlsfile.Open(tlsfile.Set{
		Cert: tlsfile.File{Name: "cert_file", Path: o.CertFile},
		Key:  tlsfile.File{Name: "key_file", Path: o.KeyFile},
		CA:   tlsfile.File{Name: "ca_file", Path: o.CAFile},
	})
}

// transport makes connections with what is to be used now.
func (c *Client) transport() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: boundAcks}
	if c.local.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.local, 0))
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if id := c.used; id != nil {
		conf.RootCAs = id.Authorities
		if id.Certificate != nil {
			// Shown to every coordinator, whatever authorities it names: it
			// says what is wrong with a certificate, and not with none.
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.Certificate, nil }
		}
	}
	return &http.Transport{
		DialContext:           dialer.DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: c.answer,
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       time.Minute,
	}
}

// boundAcks makes the kernel give a connection up whose peer has not
// acknowledged something for ackTimeout: one that was open when this host was
// cut off would else be tried for long, and be of no use when it is back.
func boundAcks(_, _ string, conn syscall.RawConn) error {
	var err error
	controlErr := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(ackTimeout/time.Millisecond))
	})
	return errors.Join(controlErr, err)
}

// client is the HTTP client for the next call. When the TLS files have changed
// it is a new one: connections that are open go on as they are, and new ones
// are made with what the files hold now.
func (c *Client) client() *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files == nil {
		return c.http
	}
	// Files that can't be used are told of when a call fails: see explain.
	if id, _ := c.files.Current(); id != c.used {
		c.http.CloseIdleConnections()
		c.used = id
		c.http = &http.Client{Transport: c.transport()}
	}
	return c.http
}

// explain says of an error of net/http what is wrong and what to do, without
// what the reader has been told: method, URL and addresses.
func (c *Client) explain(err error) error {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var remote *net.OpError
	switch {
	case errors.As(err, &authority):
		return fmt.Errorf("its certificate, issued by %q, is from none of the authorities %s: set ca_file to a file with that authority's certificate%s", issuer(authority.Cert), c.trusted(), c.unused())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("its certificate does not count now (%w): renew --tls-cert there, or set this host's clock right", invalid)
	case errors.As(err, &name):
		return fmt.Errorf("its certificate is for other names (%w): name it in \"master\" as its certificate does, or issue it one with this name", name)
	case errors.As(err, &remote) && remote.Op == "remote error":
		// That is crypto/tls's word for an alert of the other end.
		return fmt.Errorf("it refuses the connection (%w): is the certificate in cert_file one of its authorities', and not expired?%s", remote.Err, c.unused())
	case errors.Is(err, http.ErrSchemeMismatch):
		return errors.New("it speaks HTTP and not HTTPS: write http:// in \"master\", or start it with --tls-cert and --tls-key")
	}
	return terse(err)
}

// speaksTLS tells whether text is what net/http, or one of the usual proxies,
// answers on a port for HTTPS to a request in plain HTTP.
func speaksTLS(status int, text string) bool {
	return status == http.StatusBadRequest && strings.Contains(strings.ToLower(text), "http request") && strings.Contains(strings.ToUpper(text), "HTTPS")
}

// trusted says by which authorities a coordinator is judged.
func (c *Client) trusted() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used == nil || c.used.Authorities == nil {
		return "of this system"
	}
	return "in ca_file"
}

// unused says that the TLS files are not in use as they are, if so.
func (c *Client) unused() string {
	if c.files == nil {
		return ""
	}
	if _, err := c.files.Current(); err != nil {
		return fmt.Sprintf(" (files that have changed are not in use: %v)", err)
	}
	return ""
}

func issuer(cert *x509.Certificate) string {
	if cert == nil {
		return "?"
	}
	return cert.Issuer.String()
}

// terse leaves out what net/http and net put before the cause.
func terse(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err = op.Err
	}
	return err
}
