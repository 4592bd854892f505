package ipam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lineBreak stands between container and interface in a reservation, as
	// in host-local's store, whose tools can read ours.
	lineBreak = "\r\n"
	// lastPrefix is host-local's name for the file that round-robin goes on
	// from.
	lastPrefix = "last_reserved_ip."
	// newName is where a reservation is written before it gets its name. One
	// name is enough, for the lock is held.
	newName = ".new"
	// lockName is host-local's.
	lockName = "lock"
	// maxFile bounds the files of a store, in bytes: a record holds a container's
	// id, which may be long, and a few paths.
	maxFile = 64 << 10
	// lockPoll is how often a store that another process holds is tried.
	lockPoll = 2 * time.Millisecond
)

// store keeps the reservations of one overlay: a file for each address, named
// by it, that holds the owner. It is host-local's format, written so that a
// file is whole or absent. Its methods need the lock.
type store struct {
	dir  string
	lock *os.File
	// stamp is the time of change that reservations get, to tie them to their
	// owner's record; zero means that there is none.
	stamp time.Time
	// known are all reservations once they were read, for nobody else changes
	// them while we have the lock; nil before, and after a change of ours.
	known []reservation
}

// openStore opens and locks the directory, and makes it if make is set;
// without make an absent directory is fs.ErrNotExist.
func openStore(ctx context.Context, dir string, create bool) (*store, error) {
	if create {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the address store: %w", err)
		}
	} else if fi, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("%s is no directory: %w", dir, fs.ErrNotExist)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the address store's lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return &store{dir: dir, lock: f}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock the address store %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock the address store %s: another process holds it: %w", dir, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// Close gives the lock back.
func (s *store) Close() error { return s.lock.Close() }

// Reserve writes a reservation; false without error means that the address is
// taken. A file without content is what a crash of host-local leaves: it
// reserves nothing. What is no file is nobody's, and stays.
func (s *store) Reserve(id, ifname string, ip net.IP, rangeID string) (bool, error) {
	path := filepath.Join(s.dir, ip.String())
	if fi, err := os.Lstat(path); err == nil && (fi.Size() > 0 || !fi.Mode().IsRegular()) {
		return false, nil
	}
	s.known = nil
	if err := s.replaceAt(path, ownerText(id, ifname), s.stamp); err != nil {
		return false, err
	}
	if err := s.replace(filepath.Join(s.dir, lastPrefix+rangeID), ip.String()); err != nil {
		return false, errors.Join(err, os.Remove(path))
	}
	return true, nil
}

func (s *store) replace(path, text string) error { return s.replaceAt(path, text, time.Time{}) }

// replaceAt is replace with a time of change, unless that is zero.
func (s *store) replaceAt(path, text string, changed time.Time) error {
	tmp := filepath.Join(s.dir, newName)
	err := writeNew(tmp, text)
	if errors.Is(err, fs.ErrExist) {
		// A killed process's, or nobody's: to write to a pipe would wait.
		if err = os.RemoveAll(tmp); err == nil {
			err = writeNew(tmp, text)
		}
	}
	if err == nil && !changed.IsZero() {
		err = os.Chtimes(tmp, changed, changed)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("write to the address store: %w", err)
	}
	return nil
}

// writeNew writes a file that is not there yet.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// last is where round-robin goes on; not valid at the beginning, and where
// the file is of no use.
func (s *store) last(rangeID string) netip.Addr {
	data, _ := readSmall(filepath.Join(s.dir, lastPrefix+rangeID))
	a, _ := netip.ParseAddr(strings.TrimSpace(string(data)))
	return a.Unmap()
}

// ReleaseByID removes the owner's reservations; none is success.
func (s *store) ReleaseByID(id, ifname string) error {
	var errs []error
	all := s.list()
	s.known = nil
	for _, r := range all {
		if r.owner == ownerText(id, ifname) {
			if err := os.Remove(filepath.Join(s.dir, r.addr.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// GetByID lists the owner's addresses.
func (s *store) GetByID(id, ifname string) []net.IP {
	var ips []net.IP
	for _, r := range s.list() {
		if r.owner == ownerText(id, ifname) {
			ips = append(ips, r.addr.AsSlice())
		}
	}
	return ips
}

type reservation struct {
	addr  netip.Addr
	owner string
}

// list reads every whole reservation. Files that are none, and such as can't
// be read, are no reservations.
func (s *store) list() []reservation {
	if s.known == nil {
		s.known = s.read()
	}
	return s.known
}

func (s *store) read() []reservation {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil
	}
	out := make([]reservation, 0, len(entries))
	for _, e := range entries {
		// An address in other words than ours would have us remove the file of
		// the one who has it in ours.
		addr, err := netip.ParseAddr(e.Name())
		if err != nil || addr.String() != e.Name() || addr.Is4In6() {
			continue
		}
		data, err := readSmall(filepath.Join(s.dir, e.Name()))
		if text := strings.TrimSpace(string(data)); err == nil && text != "" {
			out = append(out, reservation{addr: addr, owner: text})
		}
	}
	return out
}

// readSmall reads a file of a store; what is no file, or too long for one of
// ours or host-local's, is an error. It never waits, as reading a pipe would.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of an address store: %s, %d bytes", path, fi.Mode(), fi.Size())
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func ownerText(id, ifname string) string { return strings.TrimSpace(id) + lineBreak + ifname }
