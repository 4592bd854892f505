package registry

import (
	"encoding/json"
	"sort"
	"strconv"
	"sync"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// history is a ring of the latest events, as lines ready to be sent. Every
// stream reads it at its own pace and keeps nothing but its place. It has a
// lock of its own, so that a thousand readers are in nobody's way.
type history struct {
	mu sync.RWMutex
	// grown is closed and replaced when there is something new to read.
	grown chan struct{}

	ring  []entry
	first uint64 // the number of the oldest entry
	end   uint64 // the number that the next entry gets
	// floor is the oldest revision that a reader may go on from.
	floor int64
	// rev is the revision of the last complete transaction.
	rev int64
}

type entry struct {
	rev  int64
	line []byte
}

func newHistory(size int) *history {
	return &history{ring: make([]entry, size), grown: make(chan struct{})}
}

// add appends the events of the transaction at rev, and tells that readers of
// all of them have everything up to rev. An event bears the revision that its
// reader has in full, so only the last one bears rev: whoever is cut off
// between two events of one transaction gets both again. record returns an
// agent's record as JSON, or nil if that is not at hand.
func (h *history) add(rev int64, events []api.Event, record func(*lease.Agent) []byte) error {
	lines := make([][]byte, 0, len(events))
	for i, e := range events {
		e.Revision = h.rev // written below alone, by the one who adds
		if i == len(events)-1 {
			e.Revision = rev
		}
		line, err := encodeWith(e, record)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range lines {
		if h.end-h.first == uint64(len(h.ring)) {
			h.floor = max(h.floor, h.ring[h.first%uint64(len(h.ring))].rev)
			h.first++
		}
		h.ring[h.end%uint64(len(h.ring))] = entry{rev: rev, line: line}
		h.end++
	}
	h.rev = rev
	if len(lines) > 0 {
		h.wake()
	}
	return nil
}

func (h *history) wake() {
	close(h.grown)
	h.grown = make(chan struct{})
}

// cut forbids to go on from any revision before the present one: events are
// missing from the ring.
func (h *history) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.floor = h.rev
}

// cutOff ends every reader that there is: all are too far behind from now on.
func (h *history) cutOff() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end++
	h.first = h.end
	h.wake()
}

// find returns the place right after revision since, and whether the ring has
// everything from there.
func (h *history) find(since int64) (uint64, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if since < h.floor || since > h.rev {
		return 0, false
	}
	n := sort.Search(int(h.end-h.first), func(i int) bool {
		return h.ring[(h.first+uint64(i))%uint64(len(h.ring))].rev > since
	})
	return h.first + uint64(n), true
}

// from returns the lines from place at on, the revision that their reader then
// has in full, and whether they are still there. grown is closed when there
// are more.
func (h *history) from(at uint64) (lines [][]byte, rev int64, grown <-chan struct{}, ok bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if at < h.first {
		return nil, 0, nil, false
	}
	lines = make([][]byte, 0, h.end-at)
	for ; at < h.end; at++ {
		lines = append(lines, h.ring[at%uint64(len(h.ring))].line)
	}
	return lines, h.rev, h.grown, true
}

// place is where the next event will be, and the revision before it.
func (h *history) place() (at uint64, rev int64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.end, h.rev
}

// encodeWith is encode; of an agent whose record is at hand it marshals nothing.
func encodeWith(e api.Event, record func(*lease.Agent) []byte) ([]byte, error) {
	if e.Type == api.EventSet {
		if b := record(e.Agent); b != nil {
			line := make([]byte, 0, len(setLine)+len(b)+20)
			line = append(line, `{"type":"set","revision":`...)
			line = strconv.AppendInt(line, e.Revision, 10)
			line = append(line, `,"agent":`...)
			return append(append(line, b...), lineEnd...), nil
		}
	}
	return encode(e)
}

// encode writes e as one line.
func encode(e api.Event) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}
