package leaks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
)

// fakeHost is a host of namespaces, handles, processes and veths.
type fakeHost struct {
	// handles are by path.
	handles map[string]sandbox.ID
	// living are the namespaces that a process is in, with their inodes, by
	// cookie.
	living map[uint64]uint64
	veths  map[string]bool
	// cookies counts namespaces; inodes are few, so that they are reused.
	cookies uint64

	// mapped are the containers that ports lead to.
	mapped map[string]bool

	searches atomic.Int64
	// blind makes every look fail that bears the name.
	blind map[string]bool
	// meanwhile is run once, after the next search.
	meanwhile func()
}

func newFakeHost() *fakeHost {
	return &fakeHost{handles: map[string]sandbox.ID{}, living: map[uint64]uint64{}, veths: map[string]bool{}, blind: map[string]bool{}, mapped: map[string]bool{}}
}

var errBlind = errors.New("can't look")

// unshare makes a namespace with a process and a handle. It has the inode
// number of one that is gone, if there is one.
func (h *fakeHost) unshare(path string) sandbox.ID {
	h.cookies++
	used := map[uint64]bool{}
	for _, id := range h.handles {
		used[id.Inode] = true
	}
	for _, inode := range h.living {
		used[inode] = true
	}
	id := sandbox.ID{Path: path, Device: 4, Inode: 1, Cookie: h.cookies, Boot: "boot"}
	for used[id.Inode] {
		id.Inode++
	}
	h.handles[path] = id
	h.living[id.Cookie] = id.Inode
	return id
}

func (h *fakeHost) Held(id sandbox.ID) (bool, error) {
	if h.blind["held"] {
		return false, errBlind
	}
	return h.handles[id.Path] == id, nil
}

func (h *fakeHost) Search(_ context.Context, ids []sandbox.ID) (map[sandbox.ID]bool, error) {
	h.searches.Add(1)
	if h.blind["search"] {
		return nil, errBlind
	}
	found := map[sandbox.ID]bool{}
	for _, id := range ids {
		_, found[id] = h.living[id.Cookie]
		for _, handle := range h.handles {
			found[id] = found[id] || handle.Cookie == id.Cookie
		}
	}
	if h.meanwhile != nil {
		h.meanwhile()
		h.meanwhile = nil
	}
	return found, nil
}

func (h *fakeHost) searchCount() int { return int(h.searches.Load()) }

func (h *fakeHost) HasDevice(name string) (bool, error) {
	if h.blind["device"] {
		return false, errBlind
	}
	return h.veths[name], nil
}

func (h *fakeHost) UnmapPorts(_ context.Context, e ipam.Entry) error {
	if e.Home.PortMapper == "" {
		return nil
	}
	if h.blind["unmap"] {
		return errBlind
	}
	delete(h.mapped, e.Owner.ContainerID)
	return nil
}

// String is the host as text, for failures.
func (h *fakeHost) String() string {
	var lines []string
	for path, id := range h.handles {
		lines = append(lines, fmt.Sprintf("handle %s of namespace %d, inode %d", path, id.Cookie, id.Inode))
	}
	for cookie := range h.living {
		lines = append(lines, fmt.Sprintf("process in namespace %d", cookie))
	}
	for id := range h.mapped {
		lines = append(lines, "ports to "+id)
	}
	for name := range h.veths {
		lines = append(lines, "veth "+name)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
