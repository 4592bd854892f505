// Package tlsfile is a TLS identity in PEM files: a certificate with its key,
// and the authorities that others' certificates must come from. Files that
// change are read again, so that certificates are renewed without a restart.
package tlsfile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// checkEvery is the least time between two looks at the files: a
	// handshake costs as much as a look, and there may be thousands a second.
	checkEvery = time.Second
	// maxSize bounds a file in bytes: all of a system's authorities are 250 KB.
	maxSize = 4 << 20
)

// File is one PEM file.
type File struct {
	// Name is what whoever configured it calls it, such as --tls-cert.
	Name, Path string
}

// Set names the files of an identity. Cert and Key belong together; a file
// without path is not wanted.
type Set struct{ Cert, Key, CA File }

// Identity is what the files held at one time. It does not change.
type Identity struct {
	// Certificate is nil without Cert; its Leaf is set.
	Certificate *tls.Certificate
	// Authorities is nil without CA.
	Authorities *x509.CertPool
}

// contents are the files' bytes, in the order of Set.
type contents [3][]byte

func (c contents) equal(d contents) bool {
	for i := range c {
		if !bytes.Equal(c[i], d[i]) {
			return false
		}
	}
	return true
}

// Reader hands out the identity that the files hold. It is safe for use by
// several goroutines.
type Reader struct {
	set Set
	now func() time.Time

	mu      sync.Mutex
	checked time.Time
	current *Identity
	// used is what current was made of.
	used contents
	// failure is why the files can't be used as they are now.
	failure error
}

// Open reads the files. An error names the file and what is wrong with it: it
// can't be read, holds something else, has expired, or the key is not the
// certificate's.
func Open(set Set) (*Reader, error) { return open(set, time.Now) }

func open(set Set, now func() time.Time) (*Reader, error) {
	r := &Reader{set: set, now: now}
	r.check()
	if r.failure != nil {
		return nil, r.failure
	}
	return r, nil
}

// Current is the identity to use, and why it is not what the files hold now:
// files that changed and can't be used leave the one before in its place.
func (r *Reader) Current() (*Identity, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now().Sub(r.checked) >= checkEvery {
		r.check()
	}
	return r.current, r.failure
}

// check looks at the files. It compares what they hold and not when they were
// written, since two writes may bear the same time.
func (r *Reader) check() {
	r.checked = r.now()
	now, err := r.set.read()
	if err == nil && r.current != nil && now.equal(r.used) {
		r.failure = nil
		return
	}
	var id *Identity
	if err == nil {
		id, err = r.set.parse(now, r.checked)
	}
	if r.failure = err; err == nil {
		r.current, r.used = id, now
	}
}

func (s Set) read() (c contents, err error) {
	if (s.Cert.Path == "") != (s.Key.Path == "") {
		return c, fmt.Errorf("%s and %s: one is of no use without the other; set both or none", s.Cert.Name, s.Key.Name)
	}
	for i, f := range []File{s.Cert, s.Key, s.CA} {
		if f.Path == "" {
			continue
		}
		if c[i], err = f.read(); err != nil {
			return c, fmt.Errorf("read %s: %w", f.Name, err)
		}
	}
	return c, nil
}

func (f File) read() ([]byte, error) {
	info, err := os.Stat(f.Path)
	if err != nil {
		return nil, err
	}
	// Opening a pipe might wait for ever.
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", f.Path)
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%s has more than %d bytes", f.Path, maxSize)
	}
	return data, err
}

func (s Set) parse(c contents, now time.Time) (*Identity, error) {
	id := &Identity{}
	if s.Cert.Path != "" {
		cert, err := tls.X509KeyPair(c[0], c[1])
		if err != nil {
			return nil, fmt.Errorf("%s %s and %s %s: %w", s.Cert.Name, s.Cert.Path, s.Key.Name, s.Key.Path, err)
		}
		if err := Valid(cert.Leaf, now); err != nil {
			return nil, fmt.Errorf("%s %s: the certificate %w: put a new one there", s.Cert.Name, s.Cert.Path, err)
		}
		id.Certificate = &cert
	}
	if s.CA.Path != "" {
		pool, err := authorities(c[2], now)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", s.CA.Name, s.CA.Path, err)
		}
		id.Authorities = pool
	}
	return id, nil
}

// authorities are the certificates in data, one of which at least must be of
// use now. Other kinds of PEM blocks are passed over.
func authorities(data []byte, now time.Time) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	found, useless := 0, error(nil)
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("one of its certificates can't be read: %w", err)
		}
		if err := Valid(cert, now); err != nil {
			useless = fmt.Errorf("the authority %s %w", cert.Subject, err)
			continue
		}
		pool.AddCert(cert)
		found++
	}
	switch {
	case found > 0:
		return pool, nil
	case useless != nil:
		return nil, useless
	}
	return nil, errors.New("it holds no PEM certificate")
}

// Valid tells whether now is in the time that cert is for. The error goes on
// from the certificate's name.
func Valid(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("counts only from %s on, and it is %s", cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return fmt.Errorf("expired at %s", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}
