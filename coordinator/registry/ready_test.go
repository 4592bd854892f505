package registry

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestReadyAtOnce: while etcd is known not to answer, nobody who probes waits
// until it has not answered once more.
func TestReadyAtOnce(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	// There is no client: a question would panic.
	r := quiet(&now, 0, nil)
	r.idx.baseRev = 1
	r.fresh = freshness{at: now}
	now = now.Add(7 * time.Second)
	err := r.Ready(t.Context())
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "not known to be in step with it for 7 s") {
		t.Errorf("got %v", err)
	}
}
