// Package peerset keeps the kernel's sets of the underlay addresses that this
// host accepts VXLAN packets from: one ipset for each address family, which a
// rule of package firewall looks a packet's sender up in. One rule and a hash
// serve any number of agents. Everything here works in the network namespace
// of the calling thread, and needs no program on the host.
package peerset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Names of the sets. The kernel takes 31 characters at most.
const (
	Name4 = "DCOS-OVERLAY-PEERS4"
	Name6 = "DCOS-OVERLAY-PEERS6"
)

// ErrKind is in the chain of an error about a set of our name that is not as we
// make them. It has to be destroyed, and the rule that uses it before that.
var ErrKind = errors.New("it is of another kind")

// ErrUnsupported is in the chain of an error about a kernel without ipset.
var ErrUnsupported = errors.New("the kernel has no ipset: load the modules ip_set and ip_set_hash_ip")

// busyWait bounds how long Destroy waits for a rule that is gone already to
// let go of its set: nftables frees what a deleted rule holds a moment later.
const busyWait = 2 * time.Second

// Set is the set of one address family.
type Set struct {
	Name string
	V6   bool
}

// Of is the set of IPv4 or IPv6 addresses.
func Of(v6 bool) Set {
	if v6 {
		return Set{Name: Name6, V6: true}
	}
	return Set{Name: Name4}
}

// Change is what was done to a set.
type Change struct {
	// Created says that it was not there.
	Created bool
	// Added and Removed count addresses.
	Added, Removed int
}

func (c Change) String() string {
	s := fmt.Sprintf("%d addresses added, %d removed", c.Added, c.Removed)
	if c.Created {
		s = "made; " + s
	}
	return s
}

// Sync makes the set hold exactly addrs, and makes the set if it is absent.
// Addresses come before others go, so that none that stays or is new is ever
// missing for the sake of one that goes. Addresses of the other family are
// left out.
func (s Set) Sync(ctx context.Context, addrs []netip.Addr) (Change, error) {
	var change Change
	have, err := s.list()
	if err == nil && have.kind != s.kind() {
		return change, fmt.Errorf("ipset %s: %w", s.Name, ErrKind)
	}
	if errors.Is(err, unix.ENOENT) {
		change.Created = true
		have, err = content{}, s.create()
	}
	if err != nil {
		return change, err
	}
	want := s.choose(addrs)
	change.Added, err = s.each(ctx, nl.IPSET_CMD_ADD, difference(want, have.addrs))
	if err != nil {
		return change, err
	}
	change.Removed, err = s.each(ctx, nl.IPSET_CMD_DEL, difference(have.addrs, want))
	return change, err
}

// Add puts addrs into the set and takes none out. It makes no set: without
// one it does nothing.
func (s Set) Add(ctx context.Context, addrs []netip.Addr) (Change, error) {
	have, err := s.list()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, ErrUnsupported) || err == nil && have.kind != s.kind() {
		return Change{}, nil
	}
	if err != nil {
		return Change{}, err
	}
	added, err := s.each(ctx, nl.IPSET_CMD_ADD, difference(s.choose(addrs), have.addrs))
	return Change{Added: added}, err
}

// Addrs are what the set holds, in order; there is tells whether it is there.
func (s Set) Addrs() (addrs []netip.Addr, there bool, err error) {
	have, err := s.list()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, ErrUnsupported) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return slices.SortedFunc(maps.Keys(have.addrs), netip.Addr.Compare), true, nil
}

// Size is how many addresses the set holds; 0 without a set. However many they
// are, it is one short question.
func (s Set) Size() (int, error) {
	replies, err := s.do(nl.IPSET_CMD_LIST, 0, &nl.Uint32Attribute{Type: nl.IPSET_ATTR_FLAGS | unix.NLA_F_NET_BYTEORDER, Value: flagListHeader})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, ErrUnsupported) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c := content{addrs: map[netip.Addr]bool{}}
	for _, r := range replies {
		c.read(r)
	}
	return c.size, nil
}

// Exists tells whether there is a set of this name, of whatever kind.
func (s Set) Exists() (bool, error) {
	_, err := s.do(nl.IPSET_CMD_HEADER, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}

// Destroy removes the set; that it is absent is success. It fails while a rule
// uses it.
func (s Set) Destroy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, busyWait)
	defer cancel()
	const pause = 5 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		_, err := s.do(nl.IPSET_CMD_DESTROY, 0)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, ErrUnsupported):
			return nil
		case !isBusy(err):
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: some rule uses it still", err)
		case <-ticker.C:
		}
	}
}

// Count is how many of addrs Sync would have the set hold.
func (s Set) Count(addrs []netip.Addr) int { return len(s.choose(addrs)) }

// choose are those of addrs that are of the set's family.
func (s Set) choose(addrs []netip.Addr) map[netip.Addr]bool {
	out := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if a = a.Unmap().WithZone(""); a.IsValid() && a.Is6() == s.V6 {
			out[a] = true
		}
	}
	return out
}

// difference are those of a that are not in b, in order.
func difference(a, b map[netip.Addr]bool) []netip.Addr {
	var out []netip.Addr
	for addr := range a {
		if !b[addr] {
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
