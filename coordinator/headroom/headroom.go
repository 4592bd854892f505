// Package headroom lets Go's heap grow further before it is collected. A
// collection costs what is alive, and the heap's own rule, to collect when it
// is twice what is alive, makes a coordinator of few agents, whose heap is
// small, collect many times a second under load.
package headroom

import "runtime"

// Size is how much is added to what counts as alive, in bytes: with 30 MB that
// are alive a collection begins at 316 MB and not at 60. Twice as much as 64 MB
// takes a tenth from the processor time of a claim, and 50 to 70 MB of memory
// where 10,000 agents or more claim at once.
const Size = 128 << 20

// Headroom is memory that counts as alive and is never touched, so that the
// kernel never has to give it.
type Headroom struct{ memory []byte }

// Take makes the headroom; it lasts until Release. It is for the beginning of
// a process: memory that was used before would have to be cleared.
func Take() *Headroom { return &Headroom{make([]byte, Size)} }

// Release gives it back.
func (h *Headroom) Release() {
	runtime.KeepAlive(h.memory)
	h.memory = nil
}
