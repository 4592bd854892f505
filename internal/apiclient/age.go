package apiclient

import (
	"net/http"
	"strconv"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
)

// Age is how old the oldest is that was answered to this client, to a second;
// false when all of it was in step with etcd.
func (c *Client) Age() (age time.Duration, stale bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.age, c.stale
}

func (c *Client) noteAge(h http.Header) {
	seconds, err := strconv.ParseInt(h.Get(api.HeaderStale), 10, 32)
	if err != nil || seconds < 0 {
		return // there is none, as a rule
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age, c.stale = max(c.age, time.Duration(seconds)*time.Second), true
}
