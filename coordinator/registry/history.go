package registry

import (
	"encoding/json"
	"sort"

	"github.com/dcos/dcos-overlay/internal/api"
)

// history is a ring of the latest events, as lines ready to be sent. Every
// stream reads it at its own pace and keeps nothing but its place. It is pure.
type history struct {
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

func newHistory(size int) *history { return &history{ring: make([]entry, size)} }

// add appends the events of the transaction at rev, and tells that readers of
// all of them have everything up to rev. An event bears the revision that its
// reader has in full, so only the last one bears rev: whoever is cut off
// between two events of one transaction gets both again.
func (h *history) add(rev int64, events []api.Event) error {
	for i, e := range events {
		e.Revision = h.rev
		if i == len(events)-1 {
			e.Revision = rev
		}
		line, err := encode(e)
		if err != nil {
			return err
		}
		if h.end-h.first == uint64(len(h.ring)) {
			h.floor = max(h.floor, h.ring[h.first%uint64(len(h.ring))].rev)
			h.first++
		}
		h.ring[h.end%uint64(len(h.ring))] = entry{rev: rev, line: line}
		h.end++
	}
	h.rev = rev
	return nil
}

// cut forbids to go on from any revision before the present one: events are
// missing from the ring.
func (h *history) cut() { h.floor = h.rev }

// cutOff ends every reader that there is: all are too far behind from now on.
func (h *history) cutOff() {
	h.end++
	h.first = h.end
}

// find returns the place right after revision since, and whether the ring has
// everything from there.
func (h *history) find(since int64) (uint64, bool) {
	if since < h.floor || since > h.rev {
		return 0, false
	}
	n := sort.Search(int(h.end-h.first), func(i int) bool {
		return h.ring[(h.first+uint64(i))%uint64(len(h.ring))].rev > since
	})
	return h.first + uint64(n), true
}

// from returns the lines from place at on, and whether they are still there.
func (h *history) from(at uint64) ([][]byte, bool) {
	if at < h.first {
		return nil, false
	}
	lines := make([][]byte, 0, h.end-at)
	for ; at < h.end; at++ {
		lines = append(lines, h.ring[at%uint64(len(h.ring))].line)
	}
	return lines, true
}

// encode writes e as one line.
func encode(e api.Event) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}
