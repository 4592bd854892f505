package hostinit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/mountns"
)

// diskTypes are the file systems whose mounts below the machine's root are
// laid under a host's root too; all others belong to the machine alone.
var diskTypes = []string{"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "squashfs", "erofs"}

// ownTrees are made anew for every host, so the machine's mounts in them are
// of no use there.
var ownTrees = []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/docker", "/var/lib/containerd"}

// EnterRoot gives the calling process, which must be the first of new mount,
// PID, network, IPC and UTS namespaces, the root file system that spec
// describes. Only the calling thread has it afterwards, so the caller execs
// next; the goroutine stays locked to that thread.
//
// The root is an overlay: the machine's own files below, what the host writes
// above. Nothing is created or changed on the machine outside spec.Dir.
func EnterRoot(spec Spec) error {
	runtime.LockOSThread()
	// The machine as this process sees it, which may be a chroot, is looked
	// at first: below, the root is another.
	mounts, err := machineMounts()
	if err != nil {
		return err
	}
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("reading this process's cgroups: %w", err)
	}
	if err := mountns.LeaveChroot(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("setting the host name %s: %w", spec.Hostname, err)
	}

	// The working directory is the machine's root from here on, and every
	// path is relative to it.
	root := rel(spec.Dir, "root")
	if err := overlay(".", root, spec.Dir, "all"); err != nil {
		return err
	}
	for _, m := range mounts {
		if within(spec.Dir, m) || slices.ContainsFunc(ownTrees, func(t string) bool { return within(m, t) }) {
			continue
		}
		if err := overlay(rel(m), filepath.Join(root, m), spec.Dir, strings.ReplaceAll(m, "/", "-")); err != nil {
			return err
		}
	}
	if spec.New {
		for _, p := range spec.Hide {
			if err := os.RemoveAll(filepath.Join(root, p)); err != nil {
				return fmt.Errorf("hiding the machine's %s: %w", p, err)
			}
		}
	}
	if err := systemMounts(root, string(cgroups)); err != nil {
		return err
	}
	if err := bind(rel(spec.Bin), filepath.Join(root, spec.Bin), unix.MS_RDONLY); err != nil {
		return err
	}
	for _, p := range spec.Plain {
		source := rel(spec.Dir, "plain", strings.ReplaceAll(p, "/", "-"))
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		if err := bind(source, filepath.Join(root, p), 0); err != nil {
			return err
		}
	}

	if err := os.Chdir(root); err != nil {
		return err
	}
	// The old root is stacked below the new one at the same place, and taken
	// away from there: pivot_root(2), "pivot_root(".", ".")".
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root to %s: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the machine's root: %w", err)
	}
	return os.Chdir("/")
}

// overlay mounts lower at target, with what is written going to directories
// under dir, which name tells apart.
func overlay(lower, target, dir, name string) error {
	upper, work := rel(dir, "upper", name), rel(dir, "work", name)
	for _, d := range []string{upper, work, target} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work
	// The former life of this host may still be letting go of the upper
	// directory: that is EBUSY for a moment.
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := unix.Mount("overlay", target, "overlay", 0, options)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("mounting an overlay of the machine's /%s (TMPDIR must be on a disk or a tmpfs, not itself an overlay): %w", lower, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// systemMounts mounts the file systems that a host has for itself.
func systemMounts(root, cgroups string) error {
	for _, m := range []struct {
		kind, at string
		flags    uintptr
		data     string
	}{
		{"proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", "run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmpfs", "tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		if err := mountns.Mount(m.kind, filepath.Join(root, m.at), m.flags, m.data); err != nil {
			return err
		}
	}
	if err := bind("dev", filepath.Join(root, "dev"), unix.MS_REC); err != nil {
		return err
	}
	for _, d := range []string{"run/lock", "run/netns"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	return mountns.Cgroups(filepath.Join(root, "sys/fs/cgroup"), cgroups)
}

// bind mounts source at target too; flags are MS_REC or MS_RDONLY.
func bind(source, target string, flags uintptr) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|flags&unix.MS_REC, ""); err != nil {
		return fmt.Errorf("binding %s to %s: %w", source, target, err)
	}
	if flags&unix.MS_RDONLY == 0 {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("making %s read-only: %w", target, err)
	}
	return nil
}

// machineMounts are the mount points of the machine's disks below its root,
// parents before children.
func machineMounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the machine's mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		// proc_pid_mountinfo(5): the mount point is field 5, the type is the
		// first after the separator.
		left, right, ok := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if !ok || len(f) < 5 || f[4] == "/" || !slices.Contains(diskTypes, strings.Fields(right)[0]) {
			continue
		}
		point, err := strconv.Unquote(`"` + f[4] + `"`)
		if err != nil {
			return nil, fmt.Errorf("reading the machine's mounts: %s: %w", f[4], err)
		}
		// A file that is a mount is of no use to a host.
		if info, err := os.Stat(point); err == nil && info.IsDir() {
			points = append(points, point)
		}
	}
	slices.Sort(points)
	return slices.Compact(points), nil
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// rel joins an absolute path as one relative to the machine's root.
func rel(elem ...string) string {
	return strings.TrimPrefix(filepath.Join(elem...), "/")
}
