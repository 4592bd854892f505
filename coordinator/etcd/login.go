package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// loginPause is how long a login that was refused is not tried again: each
// costs etcd a tenth of a second of hashing.
const loginPause = time.Second

// login has the token that etcd gives for a user's password. The client's own
// would keep the password of the start for ever, and log in again for each
// lease that is kept alive.
type login struct {
	user, passwordFile string

	// busy is held by whoever looks at what follows; to be waited for with a
	// deadline, since a login may hang.
	busy    chan struct{}
	have    bool
	token   string
	refused error
	until   time.Time
}

func newLogin(a Access) *login {
	if a.User == "" {
		return nil
	}
	return &login{user: a.User, passwordFile: a.PasswordFile, busy: make(chan struct{}, 1)}
}

// get is the user's token, got from etcd if need be; "" where none is needed.
func (l *login) get(ctx context.Context, cc *grpc.ClientConn) (string, error) {
	if l == nil {
		return "", nil
	}
	if err := l.lock(ctx); err != nil {
		return "", err
	}
	defer l.unlock()
	if !l.have {
		if err := l.begin(ctx, cc); err != nil {
			return "", err
		}
	}
	return l.token, nil
}

// with is ctx with the token.
func with(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
}

// begin logs in.
func (l *login) begin(ctx context.Context, cc *grpc.ClientConn) error {
	if l.refused != nil && time.Now().Before(l.until) {
		return l.refused
	}
	password, err := readPassword(l.passwordFile)
	if err != nil {
		return l.refuse(err)
	}
	req := &etcdserverpb.AuthenticateRequest{Name: l.user, Password: password}
	resp, err := etcdserverpb.NewAuthClient(cc).Authenticate(ctx, req, grpc.WaitForReady(true))
	if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled) {
		resp, err = &etcdserverpb.AuthenticateResponse{}, nil
	}
	if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthFailed) {
		return l.refuse(err)
	}
	if err != nil {
		return err
	}
	l.have, l.token, l.refused = true, resp.Token, nil
	return nil
}

func (l *login) refuse(err error) error {
	l.refused, l.until = err, time.Now().Add(loginPause)
	return err
}

// forget makes the next call log in anew, unless token is an old one already.
func (l *login) forget(ctx context.Context, token string) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if l.token == token {
		l.have = false
	}
	return nil
}

func (l *login) lock(ctx context.Context) error {
	select {
	case l.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *login) unlock() { <-l.busy }

// outdated tells whether err says that a new token would do. A token ends with
// time, with the member that gave it, and with a change of users' rights.
func outdated(err error) bool {
	e := rpctypes.Error(err)
	return errors.Is(e, rpctypes.ErrInvalidAuthToken) || errors.Is(e, rpctypes.ErrAuthOldRevision) || errors.Is(e, rpctypes.ErrUserEmpty)
}
