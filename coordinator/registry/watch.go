package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/api"
)

// ErrTooSlow ends a stream whose reader is so far behind that events which it
// has not read are gone. It resumes with a snapshot.
var ErrTooSlow = errors.New("the reader has fallen too far behind")

// openingLines is how many agents of a snapshot are sent at once.
const openingLines = 512

// Stream is one reader of the events. It is for one goroutine.
type Stream struct {
	r *Registry
	// at is the place in the history of what comes next.
	at uint64
	// rev is the revision that the reader has in full once it has read all
	// that Next returned.
	rev int64
	// opening is what Next returns first, then all agents, the last of which
	// it has returned is at told; and then synced.
	opening [][]byte
	agents  *tree
	told    netip.Addr
	synced  []byte
}

// Watch opens a stream that goes on after revision since of the epoch, or with
// a snapshot where since is 0 or can't be gone on from. An empty epoch is
// taken for the present one. Close it.
func (r *Registry) Watch(ctx context.Context, since int64, epoch string) (*Stream, error) {
	if err := r.waitSynced(ctx); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	if since > r.Revision() {
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
	s := &Stream{r: r}
	s.at, s.rev = r.hist.place()
	at, ok := uint64(0), false
	if since > 0 && (epoch == "" || epoch == r.idx.epoch()) {
		at, ok = r.hist.find(since)
	}
	if ok {
		s.opening, _, _, _ = r.hist.from(at)
	} else if err := s.snapshot(); err != nil {
		return nil, err
	}
	synced, err := encode(api.Event{Type: api.EventSynced, Revision: s.rev, Epoch: r.idx.epoch()})
	if err != nil {
		return nil, err
	}
	s.synced = synced
	r.watchers++
	return s, nil
}

// snapshot makes the opening the whole picture. Its events bear no revision
// before the last: a reader that is cut off in the midst of it, and resumes
// with what it read last, begins anew.
func (s *Stream) snapshot() error {
	x := s.r.idx
	for _, e := range []api.Event{{Type: api.EventSnapshot, Epoch: x.epoch()}, x.networkEvent()} {
		line, err := encode(e)
		if err != nil {
			return err
		}
		s.opening = append(s.opening, line)
	}
	s.agents = x.byIP.Clone()
	return nil
}

// open returns some lines of the opening; none when it is over. Its agents
// come some at a time, so that many readers at once need little memory.
func (s *Stream) open() [][]byte {
	if s.synced == nil {
		return nil
	}
	lines := s.opening
	s.opening = nil
	if s.agents != nil {
		most := len(lines) + openingLines
		for e := range ascend(s.agents, s.told) {
			if len(lines) == most {
				return lines
			}
			lines = append(lines, e.line)
			s.told = e.IP
		}
		s.agents = nil
	}
	lines = append(lines, s.synced)
	s.synced = nil
	return lines
}

// Next returns the lines that come next, and waits for them until ctx ends.
func (s *Stream) Next(ctx context.Context) ([][]byte, error) {
	if lines := s.open(); lines != nil {
		return lines, nil
	}
	for {
		lines, rev, grown, ok := s.r.hist.from(s.at)
		if !ok {
			return nil, ErrTooSlow
		}
		if len(lines) > 0 {
			s.at += uint64(len(lines))
			s.rev = rev
			return lines, nil
		}
		s.rev = rev
		select {
		case <-grown:
		case <-ctx.Done():
			// What no event tells of has moved the reader on all the same.
			if lines, rev, _, ok := s.r.hist.from(s.at); ok && len(lines) == 0 {
				s.rev = rev
			}
			return nil, ctx.Err()
		}
	}
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
