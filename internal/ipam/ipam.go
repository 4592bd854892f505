// Package ipam hands out addresses of the subnets that this agent holds, in
// host-local's order and on-disk format, in the caller's own process.
package ipam

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Pool is one overlay's addresses on this agent.
type Pool struct {
	// Dir is the store of all overlays; the pool's is the folder Overlay in it.
	Dir     string
	Overlay string
	// V4 and V6 are the leased ranges; a family without any is left out.
	V4, V6 lease.Side
	// Fixed are the ranges of fixed addresses, of both families. An address of
	// theirs is reserved if it is asked for; that it is this agent's to give
	// is for the caller to see to.
	Fixed []netip.Prefix
	// Unleased counts the overlay's subnets for agents that no agent holds, and
	// all of them, as far as this agent knows; ok is false where it does not.
	// It is called when the pool is exhausted, and may be nil.
	Unleased func() (free, all int64, ok bool)
}

// Owner is who an address is reserved for.
type Owner struct {
	ContainerID, IfName string
}

func (o Owner) String() string { return o.ContainerID + "/" + o.IfName }

// Address is one reserved address with its subnet's length, and the bridge's
// address, which the container routes through.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// ExhaustedError says that a family's ranges have no free address left.
type ExhaustedError struct {
	Overlay string
	Side    lease.Side
	// Used of the Side's addresses for containers, Capacity in number, are
	// reserved.
	Used, Capacity int64
	// Elsewhere says what other agents could claim; empty if that is unknown.
	Elsewhere string
	// NoMore is why this agent gets no further subnet; nil if nobody asked.
	NoMore error
}

func (e *ExhaustedError) Error() string {
	more := ""
	if e.NoMore != nil {
		more = fmt.Sprintf(", and it gets no further subnet: %v", e.NoMore)
	}
	return fmt.Sprintf("overlay %s: %d of %d addresses of %v are in use on this agent%s: stop containers, or start the task on another agent%s",
		e.Overlay, e.Used, e.Capacity, []netip.Prefix(e.Side), more, e.Elsewhere)
}

// exhausted is the error of a side that has no address left.
func (p Pool) exhausted(s *store, side lease.Side) *ExhaustedError {
	e := &ExhaustedError{Overlay: p.Overlay, Side: side, Used: p.used(s, side), Capacity: capacity(side)}
	if p.Unleased == nil {
		return e
	}
	switch free, all, ok := p.Unleased(); {
	case ok && free > 0:
		e.Elsewhere = fmt.Sprintf(": %d of the overlay's %d subnets can still be claimed", free, all)
	case ok:
		e.Elsewhere = fmt.Sprintf(" that holds a subnet: all %d of the overlay are leased", all)
	}
	return e
}

// DuplicateError says that the owner has an address already.
type DuplicateError struct {
	Overlay string
	Owner   Owner
	Addrs   []net.IP
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("overlay %s: container %s has address %v already: DEL it before another ADD", e.Overlay, e.Owner, e.Addrs)
}

// RequestError says why an address that was asked for can't be given.
type RequestError struct {
	Overlay string
	Addr    netip.Addr
	Reason  string
}

func (e *RequestError) Error() string {
	return fmt.Sprintf("overlay %s: address %s can't be given: %s", e.Overlay, e.Addr, e.Reason)
}

func (p Pool) dir() string { return filepath.Join(p.Dir, p.Overlay) }

// Reserve takes one address of each family that the pool has: the one of
// requested that lies in it, or the next free. All are reserved or none. With
// home nil nothing is recorded of the owner, and only a Release frees it.
func (p Pool) Reserve(ctx context.Context, owner Owner, home *Home, requested []netip.Addr) (_ []Address, err error) {
	if len(p.V4) == 0 && len(p.V6) == 0 {
		return nil, fmt.Errorf("overlay %s: this agent's lease has no subnet of it", p.Overlay)
	}
	s, err := openStore(ctx, p.dir(), true)
	if err != nil {
		return nil, fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	defer s.Close()
	if have := s.GetByID(owner.ContainerID, owner.IfName); len(have) > 0 {
		return nil, &DuplicateError{Overlay: p.Overlay, Owner: owner, Addrs: have}
	}
	if err := p.checkRequested(requested); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release(owner))
		}
	}()
	if home != nil {
		if err := s.remember(owner, *home); err != nil {
			return nil, fmt.Errorf("overlay %s: %w", p.Overlay, err)
		}
	}
	var out []Address
	for i, side := range []lease.Side{p.V4, p.V6} {
		if len(side) == 0 {
			continue
		}
		a, err := p.reserveOne(s, i, side, owner, requested)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (p Pool) checkRequested(requested []netip.Addr) error {
	var families [2]bool
	for _, r := range requested {
		side, i := p.V4, 0
		if r.Is6() {
			side, i = p.V6, 1
		}
		if !contains(side, r) && (!contains(p.Fixed, r) || len(side) == 0) {
			return &RequestError{p.Overlay, r, p.possible()}
		}
		if families[i] {
			return &RequestError{p.Overlay, r, "one address of each family is all that a container gets"}
		}
		families[i] = true
	}
	return nil
}

// possible says which addresses can be asked for.
func (p Pool) possible() string {
	text := fmt.Sprintf("this agent's addresses are of %v", append(append(lease.Side{}, p.V4...), p.V6...))
	if len(p.Fixed) > 0 {
		text += fmt.Sprintf(", and fixed addresses, on any agent, are of %v", p.Fixed)
	}
	return text
}

// Contains tells whether a is of the pool's ranges.
func (p Pool) Contains(a netip.Addr) bool {
	return contains(p.V4, a) || contains(p.V6, a) || contains(p.Fixed, a)
}

func contains(side lease.Side, a netip.Addr) bool {
	for _, p := range side {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// reserveOne takes the address of side that was requested, or the next free one
// of the first subnet that has any, so that the further subnets of an agent
// become empty and can be given back.
func (p Pool) reserveOne(s *store, rangeID int, side lease.Side, owner Owner, requested []netip.Addr) (Address, error) {
	for _, r := range requested {
		k := slices.IndexFunc(side, func(subnet netip.Prefix) bool { return subnet.Contains(r) })
		if k < 0 && r.Is4() == side[0].Addr().Is4() && contains(p.Fixed, r) {
			return p.reserveFixed(s, side[0], owner, r)
		}
		if k < 0 {
			continue
		}
		if reason := p.unfit(s, side, r); reason != "" {
			return Address{}, &RequestError{p.Overlay, r, reason}
		}
		return p.reserveOf(s, rangeID+families*k, side[k], owner, r)
	}
	var failed error
	for k, subnet := range side {
		if only := (lease.Side{subnet}); p.used(s, only) >= capacity(only) {
			continue
		}
		a, err := p.reserveOf(s, rangeID+families*k, subnet, owner, netip.Addr{})
		if err == nil {
			return a, nil
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return Address{}, failed
	}
	return Address{}, p.exhausted(s, side)
}

// reserveFixed takes a fixed address, by itself: the container reaches the
// gateway of its agent's first subnet on its link.
func (p Pool) reserveFixed(s *store, first netip.Prefix, owner Owner, want netip.Addr) (Address, error) {
	if reason := p.unfit(s, nil, want); reason != "" {
		return Address{}, &RequestError{p.Overlay, want, reason + " on this agent"}
	}
	// Round-robin goes on as it was: the mark is of no range.
	got, err := s.Reserve(owner.ContainerID, owner.IfName, want.AsSlice(), "fixed")
	if err != nil || !got {
		return Address{}, fmt.Errorf("overlay %s: reserve the fixed address %s: %w", p.Overlay, want, errors.Join(err, errTaken(got)))
	}
	return Address{Prefix: netip.PrefixFrom(want, want.BitLen()), Gateway: network.Gateway(first).Addr()}, nil
}

// errTaken is why nothing was reserved though nobody seemed to have it.
func errTaken(got bool) error {
	if got {
		return nil
	}
	return errors.New("something is in its place in the store")
}

// families is how many address families there are: the store keeps for each
// family and subnet where round-robin goes on, under numbers in that order.
const families = 2

// reserveOf takes an address of one subnet: want, if that is valid.
func (p Pool) reserveOf(s *store, rangeID int, subnet netip.Prefix, owner Owner, want netip.Addr) (Address, error) {
	mark := strconv.Itoa(rangeID)
	eligible := candidates(subnet, s.last(mark))
	if want.IsValid() {
		eligible = slices.Values([]netip.Addr{want})
	}
	for a := range eligible {
		got, err := s.Reserve(owner.ContainerID, owner.IfName, a.AsSlice(), mark)
		if err != nil {
			return Address{}, fmt.Errorf("overlay %s: reserve an address of %s: %w", p.Overlay, subnet, err)
		}
		if got {
			return Address{Prefix: netip.PrefixFrom(a, subnet.Bits()), Gateway: network.Gateway(subnet).Addr()}, nil
		}
	}
	return Address{}, fmt.Errorf("overlay %s: reserve an address of %s: there is none", p.Overlay, subnet)
}

// unfit says why a can't be reserved, or nothing.
func (p Pool) unfit(s *store, side lease.Side, a netip.Addr) string {
	for _, subnet := range side {
		if !subnet.Contains(a) {
			continue
		}
		switch {
		case a == subnet.Masked().Addr():
			return fmt.Sprintf("it is the network address of %s", subnet)
		case a == network.Gateway(subnet).Addr():
			return fmt.Sprintf("it is the gateway of %s", subnet)
		case a.Is4() && a == broadcast(subnet):
			return fmt.Sprintf("it is the broadcast address of %s", subnet)
		}
	}
	for _, r := range s.list() {
		if r.addr == a {
			return "another container has it: " + ownerOf(r.owner).String()
		}
	}
	return ""
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// Release frees all that owner has; nothing is success.
func (p Pool) Release(ctx context.Context, owner Owner) error {
	s, err := openStore(ctx, p.dir(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	defer s.Close()
	if err := s.release(owner); err != nil {
		return fmt.Errorf("overlay %s: release the addresses of %s: %w", p.Overlay, owner, err)
	}
	return nil
}

// Held lists the addresses that owner has.
func (p Pool) Held(ctx context.Context, owner Owner) ([]netip.Addr, error) {
	s, err := openStore(ctx, p.dir(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	defer s.Close()
	var out []netip.Addr
	for _, r := range s.list() {
		if r.owner == ownerText(owner.ContainerID, owner.IfName) {
			out = append(out, r.addr)
		}
	}
	return out, nil
}

// Used counts the addresses of subnet that are reserved.
func (p Pool) Used(ctx context.Context, subnet netip.Prefix) (int64, error) {
	s, err := openStore(ctx, p.dir(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	defer s.Close()
	return p.used(s, lease.Side{subnet}), nil
}

// Usage counts the addresses in use and the free ones, over both families: a
// dual-stack container counts once in each, so the scarcer family is told.
func (p Pool) Usage(ctx context.Context) (used, free int64, err error) {
	s, err := openStore(ctx, p.dir(), false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	if s != nil {
		defer s.Close()
	}
	first := true
	for _, side := range []lease.Side{p.V4, p.V6} {
		if len(side) == 0 {
			continue
		}
		var u int64
		if s != nil {
			u = p.used(s, side)
		}
		if f := max(capacity(side)-u, 0); first || f < free {
			used, free = u, f
		}
		first = false
	}
	return used, free, nil
}

// Available is an ExhaustedError when a family has no free address.
func (p Pool) Available(ctx context.Context) error {
	s, err := openStore(ctx, p.dir(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	defer s.Close()
	for _, side := range []lease.Side{p.V4, p.V6} {
		if len(side) > 0 && p.used(s, side) >= capacity(side) {
			return p.exhausted(s, side)
		}
	}
	return nil
}

func (p Pool) used(s *store, side lease.Side) (n int64) {
	for _, r := range s.list() {
		if contains(side, r.addr) {
			n++
		}
	}
	return n
}

// capacity is how many containers side has addresses for: all of a subnet but
// the network address, the gateway and, in IPv4, the broadcast address. It
// saturates at 2^62, which no agent gets to see the end of.
func capacity(side lease.Side) (n int64) {
	const most = int64(1) << 62
	for _, p := range side {
		host := p.Addr().BitLen() - p.Bits()
		if host >= 62 {
			return most
		}
		n += int64(1)<<host - 2
		if p.Addr().Is4() {
			n--
		}
	}
	return min(n, most)
}

func ownerOf(text string) Owner {
	for i := 0; i+len(lineBreak) <= len(text); i++ {
		if text[i:i+len(lineBreak)] == lineBreak {
			return Owner{text[:i], text[i+len(lineBreak):]}
		}
	}
	return Owner{ContainerID: text}
}
