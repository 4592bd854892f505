package ipam

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
)

// recordsName is a store's folder of records, one for each owner. host-local's
// walk goes through it and finds no owner's text: a record is JSON.
const recordsName = ".owners"

// Home is where an owner lives. It is recorded with the reservation, so that
// one whose owner vanished without DEL can be told from a living one's.
type Home struct {
	Netns sandbox.ID `json:"netns"`
	// HostIf is the host's end of the owner's veth; empty where another main
	// plugin made the link.
	HostIf string `json:"host_if,omitempty"`
	// Network is the CNI network's name; empty where it is the overlay's.
	Network string `json:"network,omitempty"`
	// PortMapper is the program that maps ports of the host to the owner, and
	// must remove them; empty where none are mapped.
	PortMapper string `json:"port_mapper,omitempty"`
	// Fixed says that an address of the owner's is a fixed one, which the
	// coordinator has to be told of when it is free.
	Fixed bool `json:"fixed,omitempty"`
}

// record is the content of an owner's file.
type record struct {
	ContainerID string `json:"container_id"`
	IfName      string `json:"if_name"`
	Home
	// Stamp is the time of change that the owner's reservations were given,
	// in nanoseconds since 1970. A file with another was made by somebody
	// else, for the same owner at another time: the record says nothing of it.
	Stamp int64 `json:"stamp"`
}

// Entry is a reservation with what is known of its owner, or a record that no
// reservation belongs to. Entries can be compared: what changed hands differs.
type Entry struct {
	Overlay string
	Owner   Owner
	// Addr is not valid where there is a record and no reservation.
	Addr netip.Addr
	// Known tells that the owner's Home is on record.
	Known bool
	Home  Home

	// stamp is the time of change of the reservation.
	stamp int64
}

func (e Entry) String() string {
	if !e.Addr.IsValid() {
		return fmt.Sprintf("%s: record of %s", e.Overlay, e.Owner)
	}
	return fmt.Sprintf("%s: %s of %s", e.Overlay, e.Addr, e.Owner)
}

// Stores lists the overlays that have a store in dir, or had one; none without
// error when dir is not there.
func Stores(dir string) ([]string, error) {
	folders, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the address stores: %w", err)
	}
	var out []string
	for _, f := range folders {
		// To open a folder without lock would make one.
		if fi, err := os.Stat(filepath.Join(dir, f.Name(), lockName)); err == nil && fi.Mode().IsRegular() {
			out = append(out, f.Name())
		}
	}
	return out, nil
}

// Home is where owner lives, if that is on record. It waits for nobody.
func (p Pool) Home(owner Owner) (Home, bool) {
	r, ok := readRecord((&store{dir: p.dir()}).recordPath(owner))
	return r.Home, ok && r.ContainerID == owner.ContainerID && r.IfName == owner.IfName
}

// Adopt records where owner lives, for reservations in the store that another
// program made for it, or for none.
func (p Pool) Adopt(ctx context.Context, owner Owner, home Home) error {
	s, err := openStore(ctx, p.dir(), true)
	if err != nil {
		return fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	defer s.Close()
	err = s.remember(owner, home)
	for _, r := range s.list() {
		if err == nil && r.owner == ownerText(owner.ContainerID, owner.IfName) {
			err = os.Chtimes(filepath.Join(s.dir, r.addr.String()), s.stamp, s.stamp)
		}
	}
	if err != nil {
		return fmt.Errorf("overlay %s: record where %s lives: %w", p.Overlay, owner, err)
	}
	return nil
}

// Entries lists all reservations, and the records that have none.
func (p Pool) Entries(ctx context.Context) ([]Entry, error) {
	s, err := openStore(ctx, p.dir(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	defer s.Close()
	entries, err := p.entries(s)
	if err != nil {
		return nil, fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	return entries, nil
}

func (p Pool) entries(s *store) ([]Entry, error) {
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	var out []Entry
	used := map[Owner]bool{}
	for _, r := range s.list() {
		fi, err := os.Lstat(filepath.Join(s.dir, r.addr.String()))
		if err != nil {
			return nil, fmt.Errorf("look at a reservation: %w", err)
		}
		e := Entry{Overlay: p.Overlay, Owner: ownerOf(r.owner), Addr: r.addr, stamp: fi.ModTime().UnixNano()}
		if rec, ok := records[e.Owner]; ok && rec.Stamp == e.stamp {
			e.Known, e.Home = true, rec.Home
			used[e.Owner] = true
		}
		out = append(out, e)
	}
	for owner, rec := range records {
		if !used[owner] {
			out = append(out, Entry{Overlay: p.Overlay, Owner: owner, Known: true, Home: rec.Home, stamp: rec.Stamp})
		}
	}
	return out, nil
}

// Remove removes those of the entries that are as they were and of which dead
// is true once more, with the store's lock held: no ADD is on its way. It
// tells which it removed.
func (p Pool) Remove(ctx context.Context, entries []Entry, dead func(Entry) bool) (removed []Entry, err error) {
	s, err := openStore(ctx, p.dir(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	defer s.Close()
	now, err := p.entries(s)
	if err != nil {
		return nil, fmt.Errorf("overlay %s: %w", p.Overlay, err)
	}
	wanted := make(map[Entry]bool, len(entries))
	for _, e := range entries {
		wanted[e] = true
	}
	left := map[Owner]int{}
	for _, e := range now {
		if e.Known {
			left[e.Owner]++
		}
	}
	var errs []error
	for _, e := range now {
		if !wanted[e] || !dead(e) {
			continue
		}
		if e.Addr.IsValid() {
			if err := os.Remove(filepath.Join(s.dir, e.Addr.String())); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		removed = append(removed, e)
		// A record goes with the last that it speaks of, and not before.
		if left[e.Owner]--; left[e.Owner] == 0 {
			errs = append(errs, s.forget(e.Owner))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("overlay %s: free leaked addresses: %w", p.Overlay, err)
	}
	return removed, nil
}

func (s *store) recordPath(o Owner) string {
	// Container ids may be longer than a file's name.
	sum := sha256.Sum256([]byte(ownerText(o.ContainerID, o.IfName)))
	return filepath.Join(s.dir, recordsName, hex.EncodeToString(sum[:16]))
}

// remember writes where the owner lives, before it has a reservation: whoever
// finds one finds its record.
func (s *store) remember(o Owner, home Home) error {
	s.stamp = time.Now()
	data, err := record{ContainerID: o.ContainerID, IfName: o.IfName, Home: home, Stamp: s.stamp.UnixNano()}.encode()
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", o, err)
	}
	path := s.recordPath(o)
	err = s.replace(path, string(data))
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make the folder of records: %w", err)
		}
		err = s.replace(path, string(data))
	}
	return err
}

// release removes the owner's reservations, then its record; and what a killed
// process was writing, for which nobody else comes.
func (s *store) release(o Owner) error {
	if err := s.ReleaseByID(o.ContainerID, o.IfName); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(s.dir, newName)); err != nil {
		return fmt.Errorf("remove a half-written file: %w", err)
	}
	return s.forget(o)
}

// forget removes the owner's record; none is success.
func (s *store) forget(o Owner) error {
	err := os.Remove(s.recordPath(o))
	// A folder may be where the record should be, or anything where the folder
	// of records should be.
	if errors.Is(err, unix.ENOTEMPTY) {
		err = os.RemoveAll(s.recordPath(o))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("remove the record of %s: %w", o, err)
	}
	return nil
}

// records reads all records. One that can't be read or understood is left out,
// so that its owner counts as unknown.
func (s *store) records() (map[Owner]record, error) {
	dir := filepath.Join(s.dir, recordsName)
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("list the records: %w", err)
	}
	out := make(map[Owner]record, len(files))
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		r, ok := readRecord(path)
		if o := (Owner{ContainerID: r.ContainerID, IfName: r.IfName}); ok && s.recordPath(o) == path {
			out[o] = r
		}
	}
	return out, nil
}

func readRecord(path string) (r record, ok bool) {
	data, err := readSmall(path)
	if err != nil {
		return record{}, false
	}
	return parseRecord(data)
}

func parseRecord(data []byte) (r record, ok bool) {
	err := r.decode(data)
	return r, err == nil && r.Netns.Path != "" && r.Netns.Inode != 0
}
