package headroom

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestTake: a collection begins later, and the memory is not used.
func TestTake(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	goal := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NextGC
	}
	before := goal()
	h := Take()
	with := goal()
	h.Release()
	if with < before+2*Size*9/10 {
		t.Errorf("the next collection is at %d bytes with the headroom, and was at %d without", with, before)
	}
	if after := goal(); after > before+Size {
		t.Errorf("the next collection is at %d bytes after the release, and was at %d before", after, before)
	}
}
