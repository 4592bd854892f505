package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// change names a change in an error.
type change struct {
	verb  string
	entry fmt.Stringer
	dev   string
}

func (c change) String() string { return c.verb + " " + c.entry.String() + " dev " + c.dev }

// messages are the changes in their order: what is new comes before what goes,
// so that nothing that stays reachable is unreachable in between; a route comes
// when the way to its gateway is there, and goes before it.
func (d device) messages(c dataplane.Changes) []rtnl.Message {
	l := newList(d, c.Sets()+c.Deletes())
	for i := range c.SetNeighs {
		l.set(unix.RTM_NEWNEIGH, &c.SetNeighs[i], appendNeigh(l.bodies, c.SetNeighs[i], d.index))
	}
	for i := range c.SetFDB {
		l.set(unix.RTM_NEWNEIGH, &c.SetFDB[i], appendFDB(l.bodies, c.SetFDB[i], d.index))
	}
	for i := range c.SetRoutes {
		// The gateway is on the link whatever the prefix route says.
		m := rtMsg{scope: unix.RT_SCOPE_UNIVERSE, flags: unix.RTNH_F_ONLINK}
		l.set(unix.RTM_NEWROUTE, &c.SetRoutes[i], appendRoute(l.bodies, c.SetRoutes[i], d.index, m))
	}
	for i := range c.DelRoutes {
		m := rtMsg{scope: unix.RT_SCOPE_NOWHERE} // of any scope
		l.remove(unix.RTM_DELROUTE, &c.DelRoutes[i], appendRoute(l.bodies, c.DelRoutes[i], d.index, m))
	}
	for i := range c.DelFDB {
		l.remove(unix.RTM_DELNEIGH, &c.DelFDB[i], appendFDB(l.bodies, c.DelFDB[i], d.index))
	}
	for i := range c.DelNeighs {
		l.remove(unix.RTM_DELNEIGH, &c.DelNeighs[i], appendNeigh(l.bodies, c.DelNeighs[i], d.index))
	}
	return l.msgs
}

// list is a list of messages that is made in a few large pieces: in small ones
// it takes four times as long, and the collector's time besides.
type list struct {
	dev   device
	msgs  []rtnl.Message
	names []change
	// bodies are those of all messages, one after the other.
	bodies []byte
}

// sizeofBody is about that of a message's body, in bytes.
const sizeofBody = 48

func newList(d device, n int) *list {
	return &list{dev: d, msgs: make([]rtnl.Message, 0, n), names: make([]change, 0, n), bodies: make([]byte, 0, n*sizeofBody)}
}

// set is given bodies with the message's own at their end.
func (l *list) set(typ uint16, entry fmt.Stringer, bodies []byte) {
	l.add(rtnl.Message{Type: typ, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE}, change{"add", entry, l.dev.name}, bodies)
}

func (l *list) remove(typ uint16, entry fmt.Stringer, bodies []byte) {
	l.add(rtnl.Message{Type: typ, AbsentOK: true}, change{"delete", entry, l.dev.name}, bodies)
}

func (l *list) add(m rtnl.Message, name change, bodies []byte) {
	l.names = append(l.names, name)
	m.Body, m.What = bodies[len(l.bodies):len(bodies):len(bodies)], &l.names[len(l.names)-1]
	l.bodies = bodies
	l.msgs = append(l.msgs, m)
}
