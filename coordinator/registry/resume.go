package registry

import (
	"context"
	"encoding/json"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// resumable tells whether a watch can go on from the index: it was loaded and
// has lost nothing, and etcd is still the one that it is of. Else, and if etcd
// does not say, all is loaded anew, which costs seconds with many agents.
func (r *Registry) resumable(ctx context.Context) (rev int64, ok bool) {
	r.mu.Lock()
	rev, whole, cluster, store := r.idx.rev, r.whole, r.idx.cluster, r.idx.store
	r.mu.Unlock()
	if !whole {
		return 0, false
	}
	done := r.timed("read")
	resp, err := r.client.Get(ctx, keyEpoch)
	done(err)
	if err != nil || len(resp.Kvs) != 1 || resp.Header.ClusterId != cluster || resp.Header.Revision < rev {
		return 0, false
	}
	var now string
	if json.Unmarshal(resp.Kvs[0].Value, &now) != nil || now != store {
		return 0, false
	}
	return rev, true
}

// begin makes a watch that has just begun the present one.
func (r *Registry) begin(watching context.Context, unwatch context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.following, r.whole = true, true
	r.watching, r.unwatch = watching, unwatch
	r.notify()
}

// consume applies what comes from a watch until that breaks.
func (r *Registry) consume(watch clientv3.WatchChan) error {
	for resp := range watch {
		err := resp.Err()
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			r.spoil()
			return err
		case err != nil:
			return err
		}
		if err := r.take(resp); err != nil {
			r.spoil()
			return err
		}
	}
	return errors.New("closed")
}

// changeMember begins the watch anew, until ctx ends, when it may be at a member
// that can't serve: that costs little, and nothing that a call has written is
// in the index before the watch tells of it.
func (r *Registry) changeMember(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.opts.MemberLeft:
		}
		r.mu.Lock()
		if r.unwatch != nil {
			r.unwatch()
		}
		r.mu.Unlock()
	}
}

// spoil says that the index can't be gone on from.
func (r *Registry) spoil() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.whole = false
}
