package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/network"
)

// RouteEntry is one route to a peer's subnet.
type RouteEntry struct {
	Dst netip.Prefix
	Route
}

func (e RouteEntry) String() string {
	return fmt.Sprintf("route %s via %s metric %d", e.Dst, e.Gateway, e.Metric)
}

func (e RouteEntry) compare(o RouteEntry) int { return e.Dst.Compare(o.Dst) }

// NeighEntry is one neighbour: a peer's VTEP.
type NeighEntry struct {
	IP  netip.Addr
	MAC network.MAC
}

func (e NeighEntry) String() string { return fmt.Sprintf("neighbour %s lladdr %s", e.IP, e.MAC) }

func (e NeighEntry) compare(o NeighEntry) int { return e.IP.Compare(o.IP) }

// FDBEntry is one forwarding entry: where a peer's VTEP is.
type FDBEntry struct {
	MAC network.MAC
	Dst netip.Addr
}

func (e FDBEntry) String() string { return fmt.Sprintf("forwarding entry %s dst %s", e.MAC, e.Dst) }

func (e FDBEntry) compare(o FDBEntry) int { return slices.Compare(e.MAC[:], o.MAC[:]) }

// Changes is what turns one state into another. "Set" adds the entry, or
// replaces the one with the same key.
type Changes struct {
	SetRoutes, DelRoutes []RouteEntry
	SetNeighs, DelNeighs []NeighEntry
	SetFDB, DelFDB       []FDBEntry
}

// Diff is what has to change for a kernel that holds have to hold want. Its
// lists are in no order.
func Diff(want, have Peers) Changes {
	c := Changes{
		SetRoutes: room[RouteEntry](len(want.Routes), len(have.Routes)),
		SetNeighs: room[NeighEntry](len(want.Neighs), len(have.Neighs)),
		SetFDB:    room[FDBEntry](len(want.FDB), len(have.FDB)),
	}
	for dst, w := range want.Routes {
		if h, ok := have.Routes[dst]; !ok || h != w {
			c.SetRoutes = append(c.SetRoutes, RouteEntry{dst, w})
		}
	}
	for dst, h := range have.Routes {
		// The kernel tells routes apart by destination and metric: one with
		// another metric is not replaced, but stays beside the new one.
		if w, ok := want.Routes[dst]; !ok || w.Metric != h.Metric {
			c.DelRoutes = append(c.DelRoutes, RouteEntry{dst, h})
		}
	}
	for ip, w := range want.Neighs {
		if h, ok := have.Neighs[ip]; !ok || h != w {
			c.SetNeighs = append(c.SetNeighs, NeighEntry{ip, w})
		}
	}
	for ip, h := range have.Neighs {
		if _, ok := want.Neighs[ip]; !ok {
			c.DelNeighs = append(c.DelNeighs, NeighEntry{ip, h})
		}
	}
	for mac, w := range want.FDB {
		if h, ok := have.FDB[mac]; !ok || h != w {
			c.SetFDB = append(c.SetFDB, FDBEntry{mac, w})
		}
	}
	for mac, h := range have.FDB {
		if _, ok := want.FDB[mac]; !ok {
			c.DelFDB = append(c.DelFDB, FDBEntry{mac, h})
		}
	}
	return c
}

// room is for what a table lacks at least: nearly all of it on a new host.
func room[T any](want, have int) []T {
	return slices.Grow[[]T](nil, max(0, want-have))
}

// Sets is the number of entries that are added or replaced.
func (c Changes) Sets() int { return len(c.SetRoutes) + len(c.SetNeighs) + len(c.SetFDB) }

// Deletes is the number of entries that are removed.
func (c Changes) Deletes() int { return len(c.DelRoutes) + len(c.DelNeighs) + len(c.DelFDB) }

// Empty tells whether there is nothing to do.
func (c Changes) Empty() bool { return c.Sets() == 0 && c.Deletes() == 0 }

// Lines are the changes in the order in which they are made, one each; those
// of one kind are sorted.
func (c Changes) Lines() []string {
	out := make([]string, 0, c.Sets()+c.Deletes())
	out = appendSorted(out, "set ", c.SetNeighs, NeighEntry.compare)
	out = appendSorted(out, "set ", c.SetFDB, FDBEntry.compare)
	out = appendSorted(out, "set ", c.SetRoutes, RouteEntry.compare)
	out = appendSorted(out, "delete ", c.DelRoutes, RouteEntry.compare)
	out = appendSorted(out, "delete ", c.DelFDB, FDBEntry.compare)
	return appendSorted(out, "delete ", c.DelNeighs, NeighEntry.compare)
}

func appendSorted[E fmt.Stringer](out []string, verb string, entries []E, compare func(a, b E) int) []string {
	for _, e := range slices.SortedFunc(slices.Values(entries), compare) {
		out = append(out, verb+e.String())
	}
	return out
}

// String is Lines with a line break after each but the last.
func (c Changes) String() string { return strings.Join(c.Lines(), "\n") }

// entries are the set entries without the verb.
func (c Changes) entries() []string {
	lines := c.Lines()[:c.Sets()]
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "set ")
	}
	return lines
}
