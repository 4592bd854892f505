package etcd

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/dcos/dcos-overlay/internal/tlsfile/tlstest"
)

// secured is an etcd that demands client certificates and users: writer may do
// all that the coordinator does, reader only read.
type secured struct {
	url    string
	client *clientv3.Client
	files  tlstest.Files
	dir    string
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	ca := tlstest.NewAuthority(t, "etcd's authority")
	s := &secured{dir: t.TempDir()}
	s.files = ca.Issue(tlstest.Leaf{Name: "coordinator", IPs: []string{"127.0.0.1"}}).Write(t, t.TempDir(), ca)
	c := config(t.TempDir())
	// As little hashing as there may be: the race detector makes it slow.
	c.BcryptCost = 4
	c.ListenClientUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = s.files.Cert, s.files.Key
	c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = s.files.CA, true
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()
	s.url = "https://" + server.Clients[0].Addr().String()
	s.client = v3client.New(server.Server)
	t.Cleanup(func() { _ = s.client.Close() })

	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	for user, kind := range map[string]clientv3.PermissionType{"writer": clientv3.PermissionType(clientv3.PermReadWrite), "reader": clientv3.PermissionType(clientv3.PermRead)} {
		must(s.client.RoleAdd(ctx, user))
		must(s.client.RoleGrantPermission(ctx, user, "/dcos-overlay/v1/", clientv3.GetPrefixRangeEnd("/dcos-overlay/v1/"), kind))
		must(s.client.UserAdd(ctx, user, "secret"))
		must(s.client.UserGrantRole(ctx, user, user))
	}
	must(s.client.UserAdd(ctx, "root", "of all evil"))
	must(s.client.UserGrantRole(ctx, "root", "root"))
	must(s.client.AuthEnable(ctx))
	return s
}

// access is the right way to reach s as user.
func (s *secured) access(t *testing.T, user, password string) Access {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Access{Endpoints: []string{s.url}, CA: s.files.CA, Cert: s.files.Cert, Key: s.files.Key, User: user, PasswordFile: file}
}

// write does what a claim does.
func write(ctx context.Context, s *Store) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	key := "/dcos-overlay/v1/agents/1"
	_, err := s.Client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), ">", -1)).Then(clientv3.OpPut(key, "x")).Commit()
	return err
}

// TestSecured: with the right credentials it serves, and with any other it
// says in one line which flag is wrong.
func TestSecured(t *testing.T) {
	etcd := newSecured(t)
	plain := member(t)
	stranger := tlstest.NewAuthority(t, "stranger")
	theirs := stranger.Issue(tlstest.Leaf{Name: "theirs"}).Write(t, t.TempDir(), stranger)
	for _, test := range []struct {
		name  string
		spoil func(a *Access)
		want  string
	}{
		{"all is right", func(*Access) {}, ""},
		{"wrong authority", func(a *Access) { a.CA = theirs.CA }, "is not accepted: set --etcd-ca to the authority that issued it: "},
		{"no client certificate", func(a *Access) { a.Cert, a.Key = "", "" }, "does not accept this client: set --etcd-cert and --etcd-key "},
		{"a stranger's certificate", func(a *Access) { a.Cert, a.Key = theirs.Cert, theirs.Key }, "does not accept this client: set --etcd-cert and --etcd-key "},
		{"wrong password", func(a *Access) { a.PasswordFile = etcd.access(t, "writer", "wrong").PasswordFile }, "etcd refuses user writer: "},
		{"no such user", func(a *Access) { a.User = "nobody" }, "etcd refuses user nobody: "},
		{"a user without the right", func(a *Access) { a.User = "reader" }, "etcd does not let reader read and write: grant a role "},
		{"no user", func(a *Access) { a.User, a.PasswordFile = "", "" }, "etcd does not let the user of this client's certificate read and write: "},
		{"HTTP to HTTPS", func(a *Access) {
			*a = Access{Endpoints: []string{strings.Replace(etcd.url, "https", "http", 1)}}
		}, "use https:// in --etcd"},
		{"HTTPS to HTTP", func(a *Access) { a.Endpoints = []string{strings.Replace(plain, "http", "https", 1)} }, "does not speak TLS: use http:// in --etcd"},
		{"nobody there", func(a *Access) { a.Endpoints = []string{"https://127.0.0.1:1"} }, "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := etcd.access(t, "writer", "secret")
			test.spoil(&a)
			if err := a.Check(); err != nil {
				t.Fatal(err)
			}
			s, err := Dial(a)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			watched := make(chan error)
			go func() { watched <- s.Watch(ctx) }()
			defer func() {
				cancel()
				<-watched
				_ = s.Close()
			}()
			err = write(ctx, s)
			if (err == nil) != (test.want == "") {
				t.Errorf("write: %v", err)
			}
			says := func() bool {
				trouble := s.Trouble()
				if test.want == "" {
					return trouble == nil
				}
				return trouble != nil && strings.Contains(trouble.Error(), test.want) && !strings.Contains(trouble.Error(), "\n")
			}
			for deadline := time.Now().Add(time.Minute); !says(); {
				// What lies behind a connection that is closed takes a second
				// look.
				if time.Now().After(deadline) || wait(ctx, 50*time.Millisecond) && write(ctx, s) == nil {
					t.Fatalf("got  %v\nwant %s", s.Trouble(), test.want)
				}
			}
		})
	}
}

// TestNewPassword: a password that changes is read anew when etcd asks for it,
// by calls and by watches.
func TestNewPassword(t *testing.T) {
	etcd := newSecured(t)
	a := etcd.access(t, "writer", "secret")
	s, err := Dial(a)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := write(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	root, err := Dial(etcd.access(t, "root", "of all evil"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	// That makes all tokens invalid.
	if _, err := root.Client.UserChangePassword(t.Context(), "writer", "another"); err != nil {
		t.Fatal(err)
	}
	if err := write(t.Context(), s); err == nil {
		t.Error("the old password is still of use")
	}
	if err := os.WriteFile(a.PasswordFile, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for write(ctx, s) != nil {
		if !wait(ctx, 100*time.Millisecond) {
			t.Fatalf("the new password is not used: %v", s.Trouble())
		}
	}
	watch := s.Client.Watch(ctx, "/dcos-overlay/v1/", clientv3.WithPrefix(), clientv3.WithRev(1))
	if got := <-watch; got.Err() != nil || len(got.Events) == 0 {
		t.Errorf("watch: %v, %d events", got.Err(), len(got.Events))
	}
	if _, err := s.Client.Grant(ctx, 60); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	ca := tlstest.NewAuthority(t, "ca")
	f := ca.Issue(tlstest.Leaf{Name: "good"}).Write(t, t.TempDir(), ca)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	one := []string{"https://10.0.0.1:2379"}
	for _, test := range []struct {
		access Access
		want   string
	}{
		{Access{}, ""},
		{Access{Endpoints: []string{"https://10.0.0.1:2379", "https://[fd00::1]:2379"}, CA: f.CA, Cert: f.Cert, Key: f.Key}, ""},
		{Access{Endpoints: []string{"10.0.0.1:2379"}}, `--etcd "10.0.0.1:2379" is not a URL: `},
		{Access{Endpoints: []string{"ftp://10.0.0.1:2379"}}, "must be a URL as in https://10.0.0.1:2379"},
		{Access{Endpoints: []string{"https://10.0.0.1"}}, "must have a host and a port: etcd's is 2379"},
		{Access{Endpoints: []string{"https://u:p@10.0.0.1:2379"}}, "must have nothing but scheme, host and port"},
		{Access{Endpoints: []string{"https://10.0.0.1:2379/v3"}}, "must have nothing but scheme, host and port"},
		{Access{Endpoints: []string{"https://10.0.0.1:2379", "http://10.0.0.2:2379"}}, "they must all be of one kind"},
		{Access{Endpoints: []string{"http://10.0.0.1:2379"}, CA: f.CA}, "are for https URLs in --etcd only"},
		{Access{CA: f.CA}, "are for https URLs in --etcd only"},
		{Access{Endpoints: one, Cert: f.Cert}, "--etcd-cert and --etcd-key: one is of no use without the other"},
		{Access{Endpoints: one, CA: f.Key}, "it holds no PEM certificate"},
		{Access{Endpoints: one, CA: f.CA + "x"}, "read --etcd-ca: stat "},
		{Access{Endpoints: one, User: "u"}, "--etcd-user and --etcd-password-file: one is of no use without the other"},
		{Access{User: "u", PasswordFile: empty}, "--etcd-user is for a cluster"},
		{Access{Endpoints: one, User: "u", PasswordFile: empty}, "must hold the password in one line"},
		{Access{Endpoints: one, User: "u", PasswordFile: empty + "x"}, "read --etcd-password-file: open "},
	} {
		err := test.access.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want %q", test.access, err, test.want)
		}
	}
}
