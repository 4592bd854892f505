package etcd

import (
	"context"
	"sync"
)

// news tells calls that wait for an answer that they had better ask again: a
// member that they may have asked does not answer any more, or there is another
// leader than the one that their question was handed on to.
type news struct {
	mu   sync.Mutex
	next context.Context
	end  context.CancelFunc
}

func newNews() *news {
	n := &news{}
	n.next, n.end = context.WithCancel(context.Background())
	return n
}

// untilNext is a context that ends when there are news.
func (n *news) untilNext() context.Context {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.next
}

// tell says that there are.
func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.end()
	n.next, n.end = context.WithCancel(context.Background())
}
