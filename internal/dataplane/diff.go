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

// NeighEntry is one neighbour: a peer's VTEP.
type NeighEntry struct {
	IP  netip.Addr
	MAC network.MAC
}

func (e NeighEntry) String() string { return fmt.Sprintf("neighbour %s lladdr %s", e.IP, e.MAC) }

// FDBEntry is one forwarding entry: where a peer's VTEP is.
type FDBEntry struct {
	MAC network.MAC
	Dst netip.Addr
}

func (e FDBEntry) String() string { return fmt.Sprintf("forwarding entry %s dst %s", e.MAC, e.Dst) }

// Changes is what turns one state into another. "Set" adds the entry, or
// replaces the one with the same key.
type Changes struct {
	SetRoutes, DelRoutes []RouteEntry
	SetNeighs, DelNeighs []NeighEntry
	SetFDB, DelFDB       []FDBEntry
}

// Diff is what has to change for a kernel that holds have to hold want. Its
// lists are sorted.
func Diff(want, have Peers) Changes {
	var c Changes
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
	for _, routes := range [][]RouteEntry{c.SetRoutes, c.DelRoutes} {
		slices.SortFunc(routes, func(a, b RouteEntry) int { return a.Dst.Compare(b.Dst) })
	}
	for _, neighs := range [][]NeighEntry{c.SetNeighs, c.DelNeighs} {
		slices.SortFunc(neighs, func(a, b NeighEntry) int { return a.IP.Compare(b.IP) })
	}
	for _, fdb := range [][]FDBEntry{c.SetFDB, c.DelFDB} {
		slices.SortFunc(fdb, func(a, b FDBEntry) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	}
	return c
}

// Sets is the number of entries that are added or replaced.
func (c Changes) Sets() int { return len(c.SetRoutes) + len(c.SetNeighs) + len(c.SetFDB) }

// Deletes is the number of entries that are removed.
func (c Changes) Deletes() int { return len(c.DelRoutes) + len(c.DelNeighs) + len(c.DelFDB) }

// Empty tells whether there is nothing to do.
func (c Changes) Empty() bool { return c.Sets() == 0 && c.Deletes() == 0 }

// Lines are the changes in the order in which they are made, one each.
func (c Changes) Lines() []string {
	var out []string
	for _, e := range c.SetNeighs {
		out = append(out, "set "+e.String())
	}
	for _, e := range c.SetFDB {
		out = append(out, "set "+e.String())
	}
	for _, e := range c.SetRoutes {
		out = append(out, "set "+e.String())
	}
	for _, e := range c.DelRoutes {
		out = append(out, "delete "+e.String())
	}
	for _, e := range c.DelFDB {
		out = append(out, "delete "+e.String())
	}
	for _, e := range c.DelNeighs {
		out = append(out, "delete "+e.String())
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
