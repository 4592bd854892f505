// Package agentstate is what one agent keeps on disk: in the state directory
// what outlives a reboot (its id, its lease, the peers it knew last), in the
// run directory what is of this boot (locks, and marks of what is set up).
package agentstate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/wholefile"
)

// lockPoll is how often a lock that another process holds is tried again.
const lockPoll = 10 * time.Millisecond

// Dir are an agent's two directories.
type Dir struct {
	State, Run string
}

// Held is the content of lease.json: what the coordinator granted last.
type Held struct {
	Agent   lease.Agent     `json:"agent"`
	Network network.Network `json:"network"`
	// Deleting are the overlays that are being deleted: on what this agent
	// holds of them no more containers are started.
	Deleting []string `json:"deleting,omitempty"`
	Revision int64    `json:"revision"`

	// file is the lease.json that h was read from or written to; the zero value
	// is none.
	file fileID
}

// fileID tells files apart, also such as had one inode after the other.
type fileID struct {
	device, inode uint64
	changed       unix.Timespec
}

// Drains tells whether the overlay is being deleted. h may be nil.
func (h *Held) Drains(overlay string) bool {
	return h != nil && slices.Contains(h.Deleting, overlay)
}

// Subnets counts the subnets of one family that h grants of the overlay.
func (h *Held) Subnets(overlay string, v6 bool) int {
	o := h.Agent.Overlay(overlay)
	switch {
	case o == nil:
		return 0
	case v6:
		return len(o.Subnets6)
	}
	return len(o.Subnets)
}

func (d Dir) leasePath() string { return filepath.Join(d.State, "lease.json") }
func (d Dir) idPath() string    { return filepath.Join(d.State, "agent-id") }
func (d Dir) peersPath() string { return filepath.Join(d.State, "peers.json") }

// Held reads the lease; nil without error when the agent has none yet.
func (d Dir) Held() (*Held, error) {
	data, file, err := readFile(d.leasePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lease: %w", err)
	}
	h := Held{file: file}
	if err := h.decode(data); err != nil {
		return nil, fmt.Errorf("read the lease %s: %w; it is claimed anew once it is removed", d.leasePath(), err)
	}
	if !h.Agent.IP.IsValid() || !h.Agent.VTEP.IP.IsValid() {
		return nil, fmt.Errorf("read the lease %s: it names no agent; it is claimed anew once it is removed", d.leasePath())
	}
	return &h, nil
}

// readFile reads a file, and tells which one it was.
func readFile(path string) ([]byte, fileID, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileID{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fileID{}, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	data := make([]byte, st.Size)
	_, err = io.ReadFull(f, data)
	return data, idOf(st), err
}

func idOf(st unix.Stat_t) fileID { return fileID{device: st.Dev, inode: st.Ino, changed: st.Mtim} }

// Save replaces the lease; a crash leaves the old one or the new one. It needs
// the lock.
func (d Dir) Save(h *Held) error {
	if err := d.write(d.leasePath(), h); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(d.leasePath(), &st); err != nil {
		return fmt.Errorf("look at what was written to %s: %w", d.leasePath(), err)
	}
	h.file = idOf(st)
	return nil
}

// Current tells whether h is what lease.json holds now. The file is replaced
// and never written to, so that which one it is tells all.
func (d Dir) Current(h *Held) bool {
	var st unix.Stat_t
	err := unix.Stat(d.leasePath(), &st)
	return err == nil && h.file == idOf(st)
}

// Forget removes the lease, after it was given back.
func (d Dir) Forget() error {
	if err := os.Remove(d.leasePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the lease: %w", err)
	}
	return nil
}

// Peers reads the agents that SavePeers kept; none without error when it
// never did.
func (d Dir) Peers() ([]lease.Agent, error) {
	data, err := os.ReadFile(d.peersPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the known peers: %w", err)
	}
	var peers []lease.Agent
	if err := json.Unmarshal(data, &peers); err != nil {
		return nil, fmt.Errorf("read the known peers %s: %w", d.peersPath(), err)
	}
	return peers, nil
}

// SavePeers keeps the agents for a start while no coordinator answers.
func (d Dir) SavePeers(peers []lease.Agent) error {
	return d.write(d.peersPath(), peers)
}

func (d Dir) write(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := os.MkdirAll(d.State, 0o755); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	return wholefile.Write(path, append(data, '\n'))
}

// Writable fails where nothing can be kept in the state directory, which need
// not be there yet.
func (d Dir) Writable() error {
	path := d.State
	err := unix.Access(path, unix.W_OK)
	for errors.Is(err, unix.ENOENT) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
		err = unix.Access(path, unix.W_OK)
	}
	if err != nil {
		return &fs.PathError{Op: "keep a lease in", Path: path, Err: err}
	}
	return nil
}

// ID returns the agent's id and makes it the first time. Call it with the
// lock held.
func (d Dir) ID() (string, error) {
	data, err := os.ReadFile(d.idPath())
	if id := strings.TrimSpace(string(data)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the agent's id: %w", err)
	}
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make the agent's id: %w", err)
	}
	id := hex.EncodeToString(b[:])
	if err := os.MkdirAll(d.State, 0o755); err != nil {
		return "", fmt.Errorf("make the state directory: %w", err)
	}
	if err := wholefile.Write(d.idPath(), []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("keep the agent's id: %w", err)
	}
	return id, nil
}

// Lock takes the host's lock: one process at a time claims and sets up. It
// waits no longer than ctx. The lock goes with the process that holds it.
func (d Dir) Lock(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(d.Run, "lock")
	f, err := d.open(path)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: another process on this host is setting up the overlay: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// LockCompanion takes the lock that shows that a companion runs on this host;
// it fails at once when one does.
func (d Dir) LockCompanion() (unlock func(), err error) {
	path := d.companionPath()
	f, err := d.open(path)
	if err != nil {
		return nil, err
	}
	// A lock of the open file, as flock's, but one that can be asked about
	// without being taken: CompanionRuns must not get into a start's way.
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile()); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: is another companion running on this host? %w", path, err)
	}
	return func() { f.Close() }, nil
}

// CompanionRuns tells whether a companion holds its lock.
func (d Dir) CompanionRuns() bool {
	f, err := os.Open(d.companionPath())
	if err != nil {
		return false
	}
	defer f.Close()
	lock := wholeFile()
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, lock)
	return err == nil && lock.Type != unix.F_UNLCK
}

func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }

func (d Dir) companionPath() string { return filepath.Join(d.Run, "companion.lock") }

func (d Dir) open(path string) (*os.File, error) {
	if err := os.MkdirAll(d.Run, 0o755); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, nil
}

// Ready tells whether this host was set up for the overlay since it booted:
// peers, masquerade and forwarding. Devices are looked at by who needs them.
func (d Dir) Ready(overlay string) bool {
	_, err := os.Stat(d.readyPath(overlay))
	return err == nil
}

// MarkReady makes Ready true for the overlay.
func (d Dir) MarkReady(overlay string) error {
	path := d.readyPath(overlay)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the run directory: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return fmt.Errorf("mark overlay %s as set up: %w", overlay, err)
	}
	return nil
}

// UnmarkReady makes Ready false, so that the next container sets up again.
func (d Dir) UnmarkReady(overlay string) error {
	if err := os.Remove(d.readyPath(overlay)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unmark overlay %s: %w", overlay, err)
	}
	return nil
}

// Marked are the overlays that are marked, sorted. The marks are also what
// tells, of this boot, for which overlays there are devices of ours.
func (d Dir) Marked() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.Run, "ready"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the overlays that are set up: %w", err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}

func (d Dir) readyPath(overlay string) string { return filepath.Join(d.Run, "ready", overlay) }
