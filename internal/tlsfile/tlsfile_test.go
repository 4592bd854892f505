package tlsfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

func set(f tlstest.Files) Set {
	return Set{Cert: File{"--cert", f.Cert}, Key: File{"--key", f.Key}, CA: File{"--ca", f.CA}}
}

// clock is a time that the test moves.
type clock struct{ now time.Time }

func (c *clock) read() time.Time { return c.now }

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	ca, other := tlstest.NewAuthority(t, "ca"), tlstest.NewAuthority(t, "other")
	good := ca.Issue(tlstest.Leaf{Name: "good"})
	old := ca.Issue(tlstest.Leaf{Name: "old", NotBefore: time.Now().Add(-90 * time.Minute), NotAfter: time.Now().Add(-time.Hour)})
	young := ca.Issue(tlstest.Leaf{Name: "young", NotBefore: time.Now().Add(30 * time.Minute)})
	for _, test := range []struct {
		name  string
		spoil func(f *tlstest.Files)
		want  string
	}{
		{"nothing is wrong", func(*tlstest.Files) {}, ""},
		{"no key", func(f *tlstest.Files) { f.Key = "" }, "--cert and --key: one is of no use without the other; set both or none"},
		{"no such certificate", func(f *tlstest.Files) { f.Cert += "x" }, "read --cert: stat "},
		{"a directory", func(f *tlstest.Files) { f.CA = filepath.Dir(f.CA) }, "is not a regular file"},
		{"another key", func(f *tlstest.Files) { write(t, f.Key, other.Issue(tlstest.Leaf{}).Key) }, "private key does not match public key"},
		{"no PEM", func(f *tlstest.Files) { write(t, f.Cert, []byte("hello")) }, "failed to find any PEM data in certificate input"},
		{"expired", func(f *tlstest.Files) { f.Cert = old.Write(t, filepath.Dir(f.Cert)).Cert }, "the certificate expired at "},
		{"not yet", func(f *tlstest.Files) { f.Cert = young.Write(t, filepath.Dir(f.Cert)).Cert }, "the certificate counts only from "},
		{"no authority", func(f *tlstest.Files) { write(t, f.CA, good.Key) }, "it holds no PEM certificate"},
		{"authority expired", func(f *tlstest.Files) { write(t, f.CA, old.Cert) }, "the authority CN=old expired at "},
		{"authority broken", func(f *tlstest.Files) {
			write(t, f.CA, []byte("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"))
		}, "one of its certificates can't be read: "},
		{"too long", func(f *tlstest.Files) { write(t, f.CA, make([]byte, maxSize+1)) }, "has more than 4194304 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := good.Write(t, t.TempDir(), ca)
			test.spoil(&f)
			_, err := Open(set(f))
			if got := errText(err); !strings.Contains(got, test.want) || (test.want == "") != (err == nil) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if strings.Contains(errText(err), "\n") {
				t.Errorf("more than a line: %q", err)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestRotation(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Now()}
	ca := tlstest.NewAuthority(t, "ca")
	f := ca.Issue(tlstest.Leaf{Name: "first"}).Write(t, dir, ca)
	r, err := open(set(f), c.read)
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.Current()
	if err != nil {
		t.Fatal(err)
	}
	uses := func(name string, fails bool) {
		t.Helper()
		c.now = c.now.Add(checkEvery)
		got, err := r.Current()
		if cn := got.Certificate.Leaf.Subject.CommonName; cn != name || (err != nil) != fails {
			t.Errorf("got %s, %v; want %s", cn, err, name)
		}
	}
	uses("first", false)
	if again, _ := r.Current(); again != first {
		t.Error("files that did not change were read again")
	}
	second := ca.Issue(tlstest.Leaf{Name: "second"})
	write(t, f.Key, second.Key)
	uses("first", true)
	write(t, f.Cert, second.Cert[:len(second.Cert)/2])
	uses("first", true)
	write(t, f.Cert, second.Cert)
	uses("second", false)

	if err := os.Remove(f.Cert); err != nil {
		t.Fatal(err)
	}
	uses("second", true)
	write(t, f.Cert, second.Cert)
	uses("second", false)

	// Not looked at again so soon.
	ca.Issue(tlstest.Leaf{Name: "third"}).Write(t, dir)
	if got, err := r.Current(); err != nil || got.Certificate.Leaf.Subject.CommonName != "second" {
		t.Errorf("got %s, %v", got.Certificate.Leaf.Subject.CommonName, err)
	}
	uses("third", false)
}
