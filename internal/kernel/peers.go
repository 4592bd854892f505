package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// maxErrors bounds the errors that one call names.
const maxErrors = 10

// Stats is what one SyncPeers or AddPeers has tried.
type Stats struct {
	// Changes are the planned ones, for logs. AddPeers plans no deletions.
	Changes dataplane.Changes
	// Foreign is the number of further entries to remove that no peer could
	// have, such as a second route to one subnet.
	Foreign int
	// Failed is the number of all these that failed; the error tells why.
	Failed int
}

// Changed tells whether the kernel differed from what was wanted.
func (s Stats) Changed() bool { return !s.Changes.Empty() || s.Foreign > 0 }

// SyncPeers makes want the whole of what the kernel holds of other agents on
// the VTEP. A change that fails does not keep the others from being made.
func (k *Kernel) SyncPeers(ctx context.Context, vtep string, want dataplane.Peers) (Stats, error) {
	return k.setPeers(ctx, vtep, want, true)
}

// AddPeers sees to it that the kernel holds all of want, and removes nothing:
// for callers that do not know all agents.
func (k *Kernel) AddPeers(ctx context.Context, vtep string, want dataplane.Peers) (Stats, error) {
	return k.setPeers(ctx, vtep, want, false)
}

// Peers is what the kernel holds of other agents on the VTEP.
func (k *Kernel) Peers(vtep string) (dataplane.Peers, error) {
	defer k.mu.Unlock()
	if err := k.begin(context.Background()); err != nil {
		return dataplane.Peers{}, err
	}
	dev, err := k.vtepDevice(vtep)
	if err != nil {
		return dataplane.Peers{}, err
	}
	have, err := k.holding(context.Background(), dev, dataplane.Peers{})
	return have.peers, err
}

func (k *Kernel) setPeers(ctx context.Context, vtep string, want dataplane.Peers, prune bool) (Stats, error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return Stats{}, err
	}
	dev, err := k.vtepDevice(vtep)
	if err != nil {
		return Stats{}, err
	}
	have, err := k.holding(ctx, dev, want)
	if err != nil {
		// Nothing is removed on the strength of an incomplete dump.
		return Stats{}, err
	}
	s := Stats{Changes: dataplane.Diff(want, have.peers), Foreign: len(have.foreign)}
	if !prune {
		s.Changes.DelRoutes, s.Changes.DelNeighs, s.Changes.DelFDB = nil, nil, nil
		s.Foreign = 0
	}
	msgs := dev.messages(s.Changes)
	if prune {
		// These go first: the kernel may know one by the same key as an entry
		// that is wanted, which would then go with it.
		msgs = append(have.foreign, msgs...)
	}
	failed, errs := k.conn.Apply(ctx, msgs)
	s.Failed = failed
	return s, firstOf(errs)
}

// firstOf names some of errs, and the same ones whatever their order is: that
// an error is still the same one must show.
func firstOf(errs []error) error {
	byText := make(map[string]error, len(errs))
	for _, err := range errs {
		byText[err.Error()] = err
	}
	var out []error
	for _, text := range slices.Sorted(maps.Keys(byText)) {
		if len(out) == maxErrors {
			return errors.Join(append(out, fmt.Errorf("and %d more", len(errs)-maxErrors))...)
		}
		out = append(out, byText[text])
	}
	return errors.Join(out...)
}

// device is the VTEP as the kernel knows it.
type device struct {
	name  string
	index uint32
	mac   network.MAC
}

func (k *Kernel) vtepDevice(name string) (device, error) {
	link, err := k.link(name)
	if err != nil {
		return device{}, err
	}
	if link.Type() != "vxlan" {
		return device{}, fmt.Errorf("look up peers on %s: it is of kind %s, not vxlan", name, link.Type())
	}
	mac, _ := parseMAC(link.Attrs().HardwareAddr)
	return device{name: name, index: uint32(link.Attrs().Index), mac: mac}, nil
}

// holding is what the kernel holds on the VTEP.
type holding struct {
	peers dataplane.Peers
	// foreign removes what is on the VTEP beyond peers. To delete an entry,
	// its dump is sent back, which names it in every detail.
	foreign []rtnl.Message
}

// holding reads the kernel's tables. Of several routes to one subnet it counts
// the one that want has, so that the others go.
func (k *Kernel) holding(ctx context.Context, dev device, want dataplane.Peers) (holding, error) {
	var routes []routeSeen
	var neighs, fdb []neighSeen
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := readTable(ctx, k.conn, unix.RTM_GETROUTE, dev.routeDump(family), dev.parseRoute)
		if err != nil {
			return holding{}, fmt.Errorf("list routes on %s: %w", dev.name, err)
		}
		routes = append(routes, found...)
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		body := rtnl.AppendAttr32(ndMsg{family: family}.append(nil), ndaIfindex, dev.index)
		parse := func(b []byte) (neighSeen, bool) { return dev.parseNeigh(b, family) }
		found, err := readTable(ctx, k.conn, unix.RTM_GETNEIGH, body, parse)
		if err != nil {
			return holding{}, fmt.Errorf("list neighbours on %s: %w", dev.name, err)
		}
		if family == unix.AF_BRIDGE {
			fdb = found
		} else {
			neighs = append(neighs, found...)
		}
	}
	h := holding{peers: dataplane.Peers{
		Routes: make(map[netip.Prefix]dataplane.Route, len(routes)),
		Neighs: make(map[netip.Addr]network.MAC, len(neighs)),
		FDB:    make(map[network.MAC]netip.Addr, len(fdb)),
	}}
	h.sortRoutes(dev, routes, want)
	for _, n := range neighs {
		if n.plain {
			h.peers.Neighs[n.ip] = n.mac
		} else {
			h.addForeign(dev, unix.RTM_DELNEIGH, n.raw, dataplane.NeighEntry{IP: n.ip, MAC: n.mac})
		}
	}
	h.sortFDB(dev, fdb)
	return h, nil
}

// readTable dumps a table as often as it takes to get it whole. parse may keep
// what it is given.
func readTable[T any](ctx context.Context, c *rtnl.Conn, typ uint16, body []byte, parse func([]byte) (T, bool)) ([]T, error) {
	var err error
	for range dumpAttempts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var out []T
		var chunk []byte // a copy for each entry would take longer than the rest
		err = c.Dump(typ, body, func(payload []byte) error {
			if cap(chunk)-len(chunk) < len(payload) {
				chunk = make([]byte, 0, max(chunkBytes, len(payload)))
			}
			at := len(chunk)
			entry := append(chunk, payload...)[at:]
			if t, ok := parse(entry[:len(entry):len(entry)]); ok {
				out = append(out, t)
				chunk = chunk[:at+len(entry)]
			}
			return nil
		})
		switch {
		case err == nil:
			return out, nil
		case errors.Is(err, unix.ENOENT):
			return nil, nil // no such routing table: nobody has put anything into it
		case !errors.Is(err, rtnl.ErrInterrupted) && !errors.Is(err, rtnl.ErrOverflow):
			return nil, err
		}
	}
	return nil, err
}

// chunkBytes is how many bytes of a dump are kept together.
const chunkBytes = 32 << 10

// routeSeen is a route of ours as the kernel has it.
type routeSeen struct {
	dst   netip.Prefix
	route dataplane.Route
	// plain: it has one next hop, and nothing that would set it apart.
	plain bool
	raw   []byte
}

func (d device) routeDump(family uint8) []byte {
	m := rtMsg{family: family, table: unix.RT_TABLE_MAIN, protocol: RouteProtocol}
	return rtnl.AppendAttr32(m.append(nil), unix.RTA_OIF, d.index)
}

// parseRoute reads one entry of a dump, and tells whether it is a route of
// ours; old kernels do not filter.
func (d device) parseRoute(b []byte) (r routeSeen, ours bool) {
	if len(b) < sizeofRtMsg {
		return r, false
	}
	m := parseRtMsg(b)
	if m.protocol != RouteProtocol || m.table != unix.RT_TABLE_MAIN || m.flags&unix.RTM_F_CLONED != 0 {
		return r, false
	}
	dst := netip.IPv6Unspecified()
	if m.family == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	}
	for typ, value := range rtnl.Attrs(b[sizeofRtMsg:]) {
		switch typ {
		case unix.RTA_DST:
			dst = parseAddr(value)
		case unix.RTA_GATEWAY:
			r.route.Gateway = parseAddr(value)
		case unix.RTA_PRIORITY:
			r.route.Metric = uint32Of(value)
		case unix.RTA_OIF:
			ours = uint32Of(value) == d.index
		case unix.RTA_MULTIPATH:
			ours = ours || hopsUse(value, d.index)
		}
	}
	r.dst = netip.PrefixFrom(dst, int(m.dstLen))
	r.plain = m.typ == unix.RTN_UNICAST && m.tos == 0 && r.route.Gateway.IsValid()
	r.raw = b
	return r, ours
}

// hopsUse tells whether one of the next hops (struct rtnexthop) in an
// RTA_MULTIPATH is on the device index.
func hopsUse(b []byte, index uint32) bool {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if binary.NativeEndian.Uint32(b[4:]) == index {
			return true
		}
		if size < unix.SizeofRtNexthop {
			return false
		}
		b = b[min(rtnl.Align(size), len(b)):]
	}
	return false
}

func (h *holding) sortRoutes(dev device, seen []routeSeen, want dataplane.Peers) {
	var others []routeSeen
	for _, r := range seen {
		if w, ok := want.Routes[r.dst]; ok && r.plain && r.route == w && !h.has(r.dst) {
			h.peers.Routes[r.dst] = w
		} else {
			others = append(others, r)
		}
	}
	for _, r := range others {
		if r.plain && !h.has(r.dst) {
			h.peers.Routes[r.dst] = r.route
		} else {
			h.addForeign(dev, unix.RTM_DELROUTE, r.raw, dataplane.RouteEntry{Dst: r.dst, Route: r.route})
		}
	}
}

func (h *holding) has(dst netip.Prefix) bool {
	_, has := h.peers.Routes[dst]
	return has
}

// neighSeen is a neighbour or a forwarding entry as the kernel has it.
type neighSeen struct {
	ip    netip.Addr
	mac   network.MAC
	plain bool
	raw   []byte
}

// parseNeigh reads one entry of a dump, and tells whether it is one of those
// on this VTEP that we decide on.
func (d device) parseNeigh(b []byte, family uint8) (n neighSeen, ours bool) {
	if len(b) < sizeofNdMsg {
		return n, false
	}
	m := parseNdMsg(b)
	if m.family != family || m.index != d.index {
		return n, false
	}
	macOK, special := false, false
	for typ, value := range rtnl.Attrs(b[sizeofNdMsg:]) {
		switch typ {
		case ndaDst:
			n.ip = parseAddr(value)
		case ndaLLAddr:
			n.mac, macOK = parseMAC(value)
		case ndaPort, ndaVNI, ndaIfindex, ndaSrcVNI, ndaNHID:
			special = true
		}
	}
	if family == unix.AF_BRIDGE {
		ours = n.mac != d.mac || n.ip.IsValid() // the device's own MAC is the kernel's
		n.plain = !special && n.ip.IsValid() && m.state&(nudPermanent|nudNoARP) != 0
	} else {
		// What is not permanent comes and goes by itself: the kernel's
		// multicast entries, and failed questions after unknown addresses.
		ours = m.state&nudPermanent != 0
		n.plain = macOK
	}
	n.raw = b
	return n, ours
}

func (h *holding) sortFDB(dev device, seen []neighSeen) {
	for _, n := range seen {
		// Only the MACs that stand for many, of which no peer has one, can
		// have several destinations.
		if _, taken := h.peers.FDB[n.mac]; n.plain && !taken {
			h.peers.FDB[n.mac] = n.ip
		} else {
			h.addForeign(dev, unix.RTM_DELNEIGH, n.raw, dataplane.FDBEntry{MAC: n.mac, Dst: n.ip})
		}
	}
}

func (h *holding) addForeign(dev device, typ uint16, raw []byte, entry fmt.Stringer) {
	h.foreign = append(h.foreign, rtnl.Message{Type: typ, Body: raw, What: change{"delete foreign", entry, dev.name}, AbsentOK: true})
}

func uint32Of(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
