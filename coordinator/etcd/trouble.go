package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
)

const (
	// slow is what a claim has for etcd in all; see the server's deadline.
	slow = 4 * time.Second
	// troubleStays is how long a failed call is spoken of while none of its
	// kind has succeeded: on a quiet cluster none may come.
	troubleStays = 10 * time.Second
	// greetTimeout bounds a TLS handshake and what a member says to it.
	greetTimeout = time.Second
)

// trouble remembers how the latest calls ended, by their kind: a user that may
// read and not write succeeds with every other call.
type trouble struct {
	access Access
	now    func() time.Time
	// tls is how the members are spoken to; nil for plain HTTP.
	tls *handshaker

	mu   sync.Mutex
	last map[string]failure
	// clear is what lies behind the failures that tell of a connection that
	// was closed, and nothing more.
	clear failure
}

type failure struct {
	at  time.Time
	err error
	// vague says that it may have a cause of which nothing was said.
	vague bool
}

func newTrouble(a Access) *trouble {
	return &trouble{access: a, now: time.Now, last: map[string]failure{}}
}

// note takes down how a call ended that took so long.
func (t *trouble) note(ctx context.Context, method string, took time.Duration, err error) {
	if err != nil && canceled(ctx) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
		explained, vague := t.access.explain(err)
		t.last[method] = failure{t.now(), explained, vague}
	case took >= slow:
		t.last[method] = failure{t.now(), fmt.Errorf("etcd took %s for one call, and a claim waits %s at most: look at its disks and at the network between its members", took.Round(time.Millisecond), slow), false}
	default:
		delete(t.last, method)
	}
}

// error is the latest failure that still counts.
func (t *trouble) error() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var latest failure
	for _, f := range t.last {
		if t.now().Sub(f.at) < troubleStays && f.at.After(latest.at) {
			latest = f
		}
	}
	if latest.vague && t.clear.err != nil && t.now().Sub(t.clear.at) < troubleStays {
		return t.clear.err
	}
	return latest.err
}

// clarify finds out why the members close connections, if that is all that is
// known. Since TLS 1.3 a server refuses a client only after the client has
// ended its handshake, and gRPC, which writes then, may miss the reason.
func (t *trouble) clarify(ctx context.Context) {
	t.mu.Lock()
	vague := false
	for _, f := range t.last {
		vague = vague || f.vague && t.now().Sub(f.at) < troubleStays
	}
	known := t.clear.err != nil && t.now().Sub(t.clear.at) < troubleStays/2
	t.mu.Unlock()
	if !vague || known || t.tls == nil {
		return
	}
	for _, e := range t.access.Endpoints {
		if err := t.greet(ctx, strings.TrimPrefix(e, "https://")); err != nil {
			explained, _ := t.access.explain(err)
			t.mu.Lock()
			t.clear = failure{t.now(), explained, false}
			t.mu.Unlock()
			return
		}
	}
}

// greet does a TLS handshake and waits for what the server says to it. A
// server that accepts it says nothing, and waits for a request.
func (t *trouble) greet(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: t.tls.config()}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(greetTimeout)); err != nil {
		return err
	}
	if _, err = conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// cause is what lies at the bottom of a gRPC error, in one line.
func cause(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	// Each layer says 'desc = "…"' of the one below.
	if i := strings.LastIndex(text, "desc = "); i >= 0 {
		text = text[i+len("desc = "):]
	}
	text = strings.Join(strings.Fields(strings.NewReplacer(`\`, "", `"`, "").Replace(text)), " ")
	for _, prefix := range []string{"latest balancer error: ", "last connection error: ", "etcdserver: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// explain says in one line what err means and what to do, where that is known.
// vague says that it may have a cause of which it does not tell.
func (a Access) explain(err error) (_ error, vague bool) {
	members := strings.Join(a.Endpoints, ",")
	e, text := rpctypes.Error(err), cause(err)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	switch {
	case errors.Is(e, rpctypes.ErrAuthFailed):
		return fmt.Errorf("etcd refuses user %s: there is none, or the password in --etcd-password-file %s is another", a.User, a.PasswordFile), false
	case errors.Is(e, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("etcd does not let %s read and write: grant a role with readwrite on the prefix /dcos-overlay/v1/", cmp.Or(a.User, "the user of this client's certificate")), false
	case errors.Is(e, rpctypes.ErrUserEmpty):
		return errors.New("etcd demands a user: set --etcd-user and --etcd-password-file"), false
	case text == context.DeadlineExceeded.Error(), has("use of closed network connection"):
		// The second is a connection of which gRPC itself had enough.
		return fmt.Errorf("etcd at %s does not answer in time: look at its members, at their disks and at the network between them", members), false
	case errors.Is(e, rpctypes.ErrNoSpace):
		return errors.New(alarmText("NOSPACE")), false
	case has("certificate required", "bad certificate", "unknown certificate authority"):
		return fmt.Errorf("etcd at %s does not accept this client: set --etcd-cert and --etcd-key to a certificate of an authority that it trusts: %s", members, text), false
	case has("x509: "):
		return fmt.Errorf("the certificate of etcd at %s is not accepted: set --etcd-ca to the authority that issued it: %s", members, text), false
	case has("first record does not look like a TLS handshake", "handshake failed: EOF"):
		return fmt.Errorf("etcd at %s does not speak TLS: use http:// in --etcd", members), false
	case !a.secure() && has("error reading server preface"):
		return fmt.Errorf("etcd at %s hangs up on plain HTTP: use https:// in --etcd if it speaks TLS: %s", members, text), false
	}
	return fmt.Errorf("etcd at %s: %s", members, text), has("broken pipe", "EOF", "connection reset")
}
