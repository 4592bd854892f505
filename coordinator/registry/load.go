package registry

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

const (
	// pageSize is how many keys are asked for at once: records of agents take
	// some 10 MB then. For each page etcd looks at all keys from there to the
	// end of the range, however few it returns, so with many small pages of the
	// whole prefix that took most of a load.
	pageSize = 1 << 14
	// pagesAtOnce is how many pages are under way at once.
	pagesAtOnce = 4
)

// page is some keys of one directory as they are read: agents has the entries
// of those that are agents' records, by their place.
type page struct {
	dir    string
	kvs    []*mvccpb.KeyValue
	agents []decoded
}

// decoded is an agent's record, or why it can't be read.
type decoded struct {
	entry *agentEntry
	err   error
}

// load reads all that the index is made of, as of one revision, so many keys at
// a time. Directories are read side by side, and records decoded meanwhile.
func (r *Registry) load(ctx context.Context, atOnce int64) (*index, error) {
	x := newIndex()
	done := r.timed("load")
	resp, err := r.client.Get(ctx, keyNetwork, clientv3.WithKeysOnly())
	done(err)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", prefix, err)
	}
	x.rev, x.cluster = resp.Header.Revision, resp.Header.ClusterId
	// Agents take their places in the tree when all is known of them.
	x.byIP = nil
	if err := r.readAll(ctx, x.rev, atOnce, func(p page) { r.takeIn(x, p) }); err != nil {
		return nil, fmt.Errorf("load %s: %w", prefix, err)
	}
	x.byIP = newTree()
	for ip := range x.agents {
		x.stand(ip)
	}
	x.seenChange = x.rev
	return x, nil
}

// readAll calls take, one call at a time, with all pages as of revision rev.
func (r *Registry) readAll(ctx context.Context, rev, atOnce int64, take func(page)) error {
	raw, ready := make(chan page), make(chan page)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(raw)
		readers, ctx := errgroup.WithContext(ctx)
		readers.SetLimit(pagesAtOnce)
		for _, dir := range append([]string{keyNetwork, keyEpoch}, directories()...) {
			readers.Go(func() error { return r.readDirectory(ctx, dir, rev, atOnce, raw) })
		}
		return readers.Wait()
	})
	var decoders sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		decoders.Add(1)
		group.Go(func() error {
			defer decoders.Done()
			for p := range raw {
				p.decode()
				select {
				case ready <- p:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		decoders.Wait()
		close(ready)
		return nil
	})
	for p := range ready {
		take(p)
	}
	return group.Wait()
}

// readDirectory sends the pages of dir, which may also be a key, to out.
func (r *Registry) readDirectory(ctx context.Context, dir string, rev, atOnce int64, out chan<- page) error {
	from, end := dir, dir+"\x00"
	if strings.HasSuffix(dir, "/") {
		end = clientv3.GetPrefixRangeEnd(dir)
	}
	for {
		done := r.timed("load")
		resp, err := r.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(atOnce), clientv3.WithRev(rev))
		done(err)
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			return nil
		}
		select {
		case out <- page{dir: dir, kvs: resp.Kvs}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// decode reads the records of agents, which take longest.
func (p *page) decode() {
	if p.dir != dirAgents {
		return
	}
	p.agents = make([]decoded, len(p.kvs))
	for i, kv := range p.kvs {
		_, rest := splitKey(string(kv.Key))
		p.agents[i].entry, p.agents[i].err = decodeAgent(rest, keyValueOf(kv))
	}
}

// takeIn takes p into x.
func (r *Registry) takeIn(x *index, p page) {
	for i, kv := range p.kvs {
		var err error
		if p.agents == nil {
			_, err = x.apply(keyValueOf(kv))
		} else if err = p.agents[i].err; err == nil {
			x.agents[p.agents[i].entry.IP] = p.agents[i].entry
		}
		if err != nil {
			r.opts.Log.Error("passed over a key that can't be read", "error", err)
		}
	}
}

func keyValueOf(kv *mvccpb.KeyValue) keyValue {
	return keyValue{key: string(kv.Key), value: kv.Value, rev: kv.ModRevision, lease: kv.Lease}
}
