package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"

	"github.com/dcos/dcos-overlay/internal/tlsfile"
)

// maxPassword bounds a password file in bytes.
const maxPassword = 4096

// Access is how a cluster is reached. Files are read again when they change.
type Access struct {
	// Endpoints are the members' URLs: all http, all https, or unix sockets.
	Endpoints []string
	// CA is a PEM file of authorities; without it the system's count.
	CA string
	// Cert and Key are PEM files of the client certificate.
	Cert, Key string
	// User and PasswordFile are for a cluster with authentication.
	User, PasswordFile string
	// Log is told when the cluster's health changes; nil for nobody.
	Log *slog.Logger
}

// Check tells whether a can be used. Its errors name flags, and are the
// operator's to mend.
func (a Access) Check() error {
	scheme := ""
	for _, e := range a.Endpoints {
		s, err := checkEndpoint(e)
		if err != nil {
			return err
		}
		if scheme != "" && s != scheme {
			return fmt.Errorf("--etcd has URLs with %s and with %s: they must all be of one kind", scheme, s)
		}
		scheme = s
	}
	if a.CA+a.Cert+a.Key != "" && scheme != "https" {
		return errors.New("--etcd-ca, --etcd-cert and --etcd-key are for https URLs in --etcd only")
	}
	if (a.User == "") != (a.PasswordFile == "") {
		return errors.New("--etcd-user and --etcd-password-file: one is of no use without the other; set both or none")
	}
	if a.User != "" && len(a.Endpoints) == 0 {
		return errors.New("--etcd-user is for a cluster: set --etcd, too")
	}
	if a.PasswordFile != "" {
		if _, err := readPassword(a.PasswordFile); err != nil {
			return err
		}
	}
	_, err := tlsfile.Open(a.files())
	return err
}

func checkEndpoint(text string) (scheme string, err error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", fmt.Errorf("--etcd %q is not a URL: %w", text, err)
	case u.Scheme == "unix":
		return u.Scheme, nil
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("--etcd %q must be a URL as in https://10.0.0.1:2379", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", fmt.Errorf("--etcd %q must have nothing but scheme, host and port", text)
	}
	if host, port, err := net.SplitHostPort(u.Host); err != nil || host == "" || port == "" {
		return "", fmt.Errorf("--etcd %q must have a host and a port: etcd's is 2379", text)
	}
	return u.Scheme, nil
}

func (a Access) files() tlsfile.Set {
	return tlsfile.Set{
		Cert: tlsfile.File{Name: "--etcd-cert", Path: a.Cert},
		Key:  tlsfile.File{Name: "--etcd-key", Path: a.Key},
		CA:   tlsfile.File{Name: "--etcd-ca", Path: a.CA},
	}
}

func (a Access) secure() bool {
	return len(a.Endpoints) > 0 && strings.HasPrefix(a.Endpoints[0], "https://")
}

func readPassword(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read --etcd-password-file: %w", err)
	}
	// Editors end a file with a newline.
	data = bytes.TrimRight(data, "\r\n")
	if len(data) == 0 || len(data) > maxPassword || bytes.ContainsAny(data, "\r\n") {
		return "", fmt.Errorf("--etcd-password-file %s must hold the password in one line of at most %d bytes", path, maxPassword)
	}
	return string(data), nil
}

// handshaker is TLS with what the files hold at the time of each handshake.
type handshaker struct {
	files *tlsfile.Reader
	name  string
}

func (h *handshaker) config() *tls.Config {
	// Files that can't be used leave those before in their place.
	id, _ := h.files.Current()
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: id.Authorities, ServerName: h.name}
	if id.Certificate != nil {
		conf.Certificates = []tls.Certificate{*id.Certificate}
	}
	return conf
}

func (h *handshaker) now() credentials.TransportCredentials { return credentials.NewTLS(h.config()) }

// ClientHandshake is gRPC's.
func (h *handshaker) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.now().ClientHandshake(ctx, authority, raw)
}

// ServerHandshake is gRPC's.
func (h *handshaker) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.now().ServerHandshake(raw)
}

// Info is gRPC's.
func (h *handshaker) Info() credentials.ProtocolInfo { return h.now().Info() }

// Clone is gRPC's.
func (h *handshaker) Clone() credentials.TransportCredentials {
	c := *h
	return &c
}

// OverrideServerName is gRPC's.
func (h *handshaker) OverrideServerName(name string) error {
	h.name = name
	return nil
}
