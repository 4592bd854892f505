package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/dcos/dcos-overlay/internal/api"
)

// ErrTooSlow ends a stream whose reader is so far behind that events which it
// has not read are gone. It resumes with a snapshot.
var ErrTooSlow = errors.New("the reader has fallen too far behind")

// Stream is one reader of the events. It is for one goroutine.
type Stream struct {
	r *Registry
	// at is the place in the history of what comes next.
	at uint64
	// rev is the revision that the reader has in full once it has read all
	// that Next returned.
	rev int64
	// opening is what Next returns first.
	opening [][]byte
}

// Watch opens a stream that goes on after revision since of the epoch, or with
// a snapshot where since is 0 or can't be gone on from. An empty epoch is
// taken for the present one. Close it.
func (r *Registry) Watch(ctx context.Context, since int64, epoch string) (*Stream, error) {
	if err := r.waitSynced(ctx); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	if since > 0 {
		// The reader may come from a coordinator that is ahead of this one.
		// A revision that etcd itself does not know is of another etcd.
		rev, err := r.revision(ctx)
		if err != nil {
			return nil, fmt.Errorf("watch: %w: %w", ErrUnavailable, err)
		}
		if since <= rev {
			if err := r.waitRevision(ctx, since); err != nil {
				return nil, fmt.Errorf("watch: %w", err)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &Stream{r: r, at: r.hist.end, rev: r.hist.rev}
	at, ok := uint64(0), false
	if since > 0 && (epoch == "" || epoch == r.idx.epoch()) {
		at, ok = r.hist.find(since)
	}
	if ok {
		s.opening, _ = r.hist.from(at)
	} else if err := s.snapshot(); err != nil {
		return nil, err
	}
	synced, err := encode(api.Event{Type: api.EventSynced, Revision: s.rev, Epoch: r.idx.epoch()})
	if err != nil {
		return nil, err
	}
	s.opening = append(s.opening, synced)
	r.watchers++
	return s, nil
}

// snapshot makes the opening the whole picture. Its events bear no revision
// before the last: a reader that is cut off in the midst of it, and resumes
// with what it read last, begins anew.
func (s *Stream) snapshot() error {
	x := s.r.idx
	s.opening = make([][]byte, 0, len(x.agents)+3)
	for _, e := range []api.Event{{Type: api.EventSnapshot, Epoch: x.epoch()}, x.networkEvent()} {
		line, err := encode(e)
		if err != nil {
			return err
		}
		s.opening = append(s.opening, line)
	}
	for _, a := range x.agents {
		s.opening = append(s.opening, a.line)
	}
	return nil
}

// Next returns the lines that come next, and waits for them until ctx ends.
func (s *Stream) Next(ctx context.Context) ([][]byte, error) {
	if lines := s.opening; lines != nil {
		s.opening = nil
		return lines, nil
	}
	var lines [][]byte
	var ok bool
	err := s.r.await(ctx, func() bool {
		if lines, ok = s.r.hist.from(s.at); ok {
			s.at += uint64(len(lines))
			s.rev = s.r.hist.rev
		}
		return !ok || len(lines) > 0
	}, nil)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, ErrTooSlow
	}
	return lines, nil
}

// Ping is a line that says how far the reader is.
func (s *Stream) Ping() ([]byte, error) {
	return encode(api.Event{Type: api.EventPing, Revision: s.rev})
}

// Close ends the stream.
func (s *Stream) Close() {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.watchers--
}
