package leaks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/ipam/sandbox"
	"github.com/dcos/dcos-overlay/internal/portmap"
)

// Machine is the host that this process runs on, as /proc shows it. The
// process must be in the host's network and process namespaces, as root.
type Machine struct{}

// Held tells whether the handle of the namespace is still at its path.
func (Machine) Held(id sandbox.ID) (bool, error) { return id.Held() }

// HasDevice tells whether this network namespace has a device of that name.
func (Machine) HasDevice(name string) (bool, error) {
	_, err := netlink.LinkByName(name)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for device %s: %w", name, err)
	}
	return true, nil
}

// unmapTimeout bounds the run of one port mapper; ADDs wait meanwhile.
const unmapTimeout = 5 * time.Second

// UnmapPorts runs the program that mapped ports of the host to the container,
// if there is one on record.
func (Machine) UnmapPorts(ctx context.Context, e ipam.Entry) error {
	// The rules went with the boot that they were made in.
	if e.Home.PortMapper == "" || !e.Home.Netns.OfThisBoot() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, unmapTimeout, fmt.Errorf("not done within %s", unmapTimeout))
	defer cancel()
	m := portmap.Mapping{
		Program:     e.Home.PortMapper,
		CNIPath:     filepath.Dir(e.Home.PortMapper),
		Network:     e.Home.Network,
		ContainerID: e.Owner.ContainerID,
		IfName:      e.Owner.IfName,
	}
	if m.Network == "" {
		m.Network = e.Overlay
	}
	if err := m.Remove(ctx); err != nil || !e.Addr.IsValid() {
		return err
	}
	return portmap.ForgetFlows([]netip.Addr{e.Addr})
}

// Search goes through every thread, every open file and, once for each mount
// namespace, every mount: a handle may be unmounted while processes live, lie
// where we don't see it, or be an open file only.
func (Machine) Search(ctx context.Context, ids []sandbox.ID) (map[sandbox.ID]bool, error) {
	s := search{wanted: map[uint64][]sandbox.ID{}, found: map[sandbox.ID]bool{}, mounts: map[string]bool{}, seen: map[uint64]bool{}}
	for _, id := range ids {
		if id.OfThisBoot() {
			s.wanted[id.Inode] = append(s.wanted[id.Inode], id)
		}
	}
	if len(s.wanted) == 0 {
		return s.found, nil
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("search the processes for network namespaces: %w", context.Cause(ctx))
		}
		err := s.process(filepath.Join("/proc", p.Name()))
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: give the companion CAP_SYS_PTRACE and CAP_SYS_ADMIN", err)
		}
		if err != nil {
			return nil, fmt.Errorf("search the processes for network namespaces: %w", err)
		}
	}
	return s.found, nil
}

type search struct {
	// wanted are by inode number, which is what links in /proc show.
	wanted map[uint64][]sandbox.ID
	found  map[sandbox.ID]bool
	// mounts are the mount namespaces that were gone through.
	mounts map[string]bool
	// seen are the inode numbers that were compared: no two namespaces have
	// one at the same time.
	seen map[uint64]bool
}

func (s *search) process(dir string) error {
	// A leader can be gone while its threads live on.
	threads, err := os.ReadDir(filepath.Join(dir, "task"))
	if err := unlessGone(err); err != nil {
		return err
	}
	for _, t := range threads {
		thread := filepath.Join(dir, "task", t.Name())
		if err := s.link(filepath.Join(thread, "ns/net")); err != nil {
			return err
		}
		if err := s.mountsOf(thread); err != nil {
			return err
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err := unlessGone(err); err != nil {
		return err
	}
	for _, f := range files {
		if err := s.link(filepath.Join(dir, "fd", f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// link looks at a symbolic link that may show a namespace.
func (s *search) link(path string) error {
	target, err := os.Readlink(path)
	if err != nil {
		return unlessGone(err)
	}
	inode, ok := s.awaits(target)
	if !ok {
		return nil
	}
	f, err := open(path)
	if err != nil {
		return unlessGone(err)
	}
	defer f.Close()
	return s.compare(inode, f)
}

// awaits tells whether name, such as "net:[4026531840]", may be that of a
// namespace that is wanted, and was not compared before.
func (s *search) awaits(name string) (inode uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, "net:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 64)
	return inode, err == nil && len(s.wanted[inode]) > 0 && !s.seen[inode]
}

// compare compares f, which should have that inode number, to those wanted.
func (s *search) compare(inode uint64, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	if st.Ino != inode {
		// Something lies over the handle, or took its place.
		s.suspect(inode)
		return nil
	}
	for _, id := range s.wanted[inode] {
		same, err := id.Is(f)
		if err != nil {
			return err
		}
		if same {
			s.found[id] = true
		}
	}
	s.seen[inode] = true
	return nil
}

// suspect counts as found what can't be looked at.
func (s *search) suspect(inode uint64) {
	for _, id := range s.wanted[inode] {
		s.found[id] = true
	}
}

// mountsOf goes through the mounts that the thread sees, unless another one
// sees the same.
func (s *search) mountsOf(dir string) error {
	space, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
	if err != nil {
		return unlessGone(err)
	}
	if s.mounts[space] {
		return nil
	}
	f, err := os.Open(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return unlessGone(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc_pid_mountinfo(5): the fourth field is the root of the mount
		// in its file system, the fifth where it is mounted.
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		inode, ok := s.awaits(fields[3])
		if !ok {
			continue
		}
		f, err := open(filepath.Join(dir, "root", fields[4]))
		if err != nil {
			// It is hidden, or has a name with blanks, which are escaped.
			s.suspect(inode)
			continue
		}
		err = s.compare(inode, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return unlessGone(err)
	}
	s.mounts[space] = true
	return nil
}

// open does not wait, whatever is at path by now.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// unlessGone is err, unless it says that a process, a thread or an open file
// ended while it was looked at.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}
