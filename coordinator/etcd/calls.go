package etcd

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// firstTry is how long a call waits for one member before it is put to
	// the next. Each further try has half as much more, for all may be slow.
	firstTry = 500 * time.Millisecond
	// maxTries bounds them, to 25 seconds in all, and so does the call's own
	// deadline.
	maxTries = 8
	// firstPause is the pause before a call that a member could not serve is
	// put to the next; each further one is twice as long. An election takes
	// one to two seconds.
	firstPause = 100 * time.Millisecond
)

// The calls that may be made twice: reads, logins, grants, whose second lease
// ends by itself, and transactions, since all of ours write only what they
// compare, so that a second one finds the first one done.
const (
	methodRange        = "/etcdserverpb.KV/Range"
	methodTxn          = "/etcdserverpb.KV/Txn"
	methodGrant        = "/etcdserverpb.Lease/LeaseGrant"
	methodAuthenticate = "/etcdserverpb.Auth/Authenticate"
	methodWatch        = "/etcdserverpb.Watch/Watch"
)

// calls is what each call of etcd passes through: it gets the user's token,
// and is put to another member where one does not answer.
type calls struct {
	login   *login
	trouble *trouble
	news    *news
}

func (c *calls) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	switch method {
	case methodRange, methodTxn, methodGrant, methodAuthenticate:
	default:
		return c.once(ctx, ctx, method, req, reply, cc, invoke, opts...)
	}
	begin := time.Now()
	patience, pause := firstTry, firstPause
	var err error
	for range maxTries {
		try, cancel := context.WithTimeout(ctx, patience)
		news := c.news.untilNext()
		heard := context.AfterFunc(news, cancel)
		err = c.once(ctx, try, method, req, reply, cc, invoke, opts...)
		late := try.Err() != nil
		heard()
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
		if late {
			if news.Err() == nil {
				patience += patience / 2
			}
			continue
		}
		// The client itself repeats reads that a member could not serve.
		if status.Code(err) != codes.Unavailable || method == methodRange || !wait(ctx, pause) {
			break
		}
		pause *= 2
	}
	c.trouble.note(ctx, method, time.Since(begin), err)
	return err
}

// once makes the call within try, and a second time if the token was not of
// use. A login has all of ctx: etcd hashes the password for a while.
func (c *calls) once(ctx, try context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method == methodAuthenticate {
		return invoke(try, method, req, reply, cc, opts...)
	}
	for second := false; ; second = true {
		token, err := c.login.get(ctx, cc)
		if err != nil {
			return err
		}
		err = invoke(with(try, token), method, req, reply, cc, opts...)
		if second || c.login == nil || !outdated(err) {
			return err
		}
		if err := c.login.forget(ctx, token); err != nil {
			return err
		}
	}
}

// wait lets d pass; it tells whether ctx lasted as long.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *calls) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if method == methodWatch && c.login != nil {
		// A watch does not tell that its token is old in a way that it could
		// be begun anew at once, and there are few of them.
		token, err := c.login.get(ctx, cc)
		if err == nil {
			err = c.login.forget(ctx, token)
		}
		if err != nil {
			return nil, err
		}
	}
	token, err := c.login.get(ctx, cc)
	if err != nil {
		return nil, err
	}
	return open(with(ctx, token), desc, cc, method, opts...)
}

// canceled tells whether it was the caller who ended a call.
func canceled(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }
