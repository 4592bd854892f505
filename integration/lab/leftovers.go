package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/internal/tempdir"
)

// dirPrefix begins the name of a lab's directory and of its cgroups, which tells
// whether its owner is gone.
const dirPrefix = "dcos-overlay-lab-"

// TempDir makes a directory for a lab, or for the programs that it runs. The
// next lab removes it if the process that made it ends before it has.
func TempDir() (string, error) { return tempdir.Make(dirPrefix) }

// stale tells whether name is that of a lab whose owner is gone.
func stale(name string) bool { return tempdir.Stale(dirPrefix, name) }

// removeStale removes what is left of labs whose owner is gone. Their
// processes, mounts and networks end with the owner.
func (l *Lab) removeStale() error {
	return errors.Join(l.removeCgroups(stale), l.removeDirs(stale))
}

// removeDirs removes the directories of those labs whose name fits.
func (l *Lab) removeDirs(fits func(string) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	temp := filepath.Dir(l.dir)
	// The processes of a lab whose owner has just been killed may write on for a
	// moment, and another lab may be removing the same.
	return Until(ctx, "the directories to be removed", func(context.Context) error {
		entries, err := os.ReadDir(temp)
		if err != nil {
			return err
		}
		var errs []error
		for _, e := range entries {
			if fits(e.Name()) {
				l.logf("removing %s", e.Name())
				errs = append(errs, os.RemoveAll(filepath.Join(temp, e.Name())))
			}
		}
		return errors.Join(errs...)
	})
}

// removeCgroups removes the cgroups of those labs whose name fits, in every
// hierarchy. It looks through the outside host's mounts, for the machine may
// have none.
func (l *Lab) removeCgroups(fits func(string) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	// A cgroup can be removed a moment after its last process.
	return Until(ctx, "the cgroups to be removed", func(context.Context) error {
		at := fmt.Sprintf("/proc/%d/root/sys/fs/cgroup", l.Outside.PID())
		tops, err := filepath.Glob(at + "/" + dirPrefix + "*")
		if err != nil {
			return err
		}
		v1, err := filepath.Glob(at + "/*/" + dirPrefix + "*")
		if err != nil {
			return err
		}
		var errs []error
		for _, top := range append(tops, v1...) {
			if fits(filepath.Base(top)) {
				errs = append(errs, removeCgroup(top))
			}
		}
		return errors.Join(errs...)
	})
}

// removeCgroup removes a cgroup and those in it, children first. The files in
// a cgroup are the kernel's and go with it.
func removeCgroup(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	errs := []error{err}
	for _, d := range slices.Backward(dirs) {
		if err := os.Remove(d); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// space is a namespace that a host has or had.
type space struct {
	host string
	// ended is a moment just before the host's life ended, in clock ticks
	// since boot; 0 while it is on.
	ended int64
}

// spaceKinds are the namespaces by which a host's processes are told.
var spaceKinds = []string{"net", "mnt", "pid"}

// remember notes the namespaces of a host that has just started, so that Close
// can look for them.
func (l *Lab) remember(h *Host) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, kind := range spaceKinds {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", h.pid, kind))
		if err != nil {
			return err
		}
		l.spaces[link] = space{host: h.Name}
	}
	return nil
}

// markEnded notes that the namespaces of a host may be others' from a moment
// on: the kernel uses their numbers again as soon as they are free, which is
// before anybody learns that the host has ended. So the moment is one before
// the host was killed.
func (l *Lab) markEnded(h *Host, tick int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for link, s := range l.spaces {
		if s.host == h.Name && s.ended == 0 {
			s.ended = tick
			l.spaces[link] = s
		}
	}
}

// uptime is the time since boot in clock ticks.
func uptime() (int64, error) {
	// proc_uptime(5): seconds since boot, with two decimals; a clock tick is a
	// hundredth of a second, see time(7).
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	var seconds, hundredths int64
	if _, err := fmt.Sscanf(string(text), "%d.%d", &seconds, &hundredths); err != nil {
		return 0, fmt.Errorf("reading /proc/uptime: %w", err)
	}
	return seconds*100 + hundredths, nil
}

// leftoverTimeout bounds the waiting for what may still be on its way out, or
// is another lab's for a moment: a thread that looks into a host of its own.
const leftoverTimeout = 3 * time.Second

// leftovers lists processes that are still in a namespace of the lab, and
// mounts of it in this process's own mount namespace.
func (l *Lab) leftovers() error {
	ctx, cancel := context.WithTimeout(context.Background(), leftoverTimeout)
	defer cancel()
	return Until(ctx, "the hosts to leave nothing", func(context.Context) error {
		return errors.Join(l.processes(), l.mounts())
	})
}

func (l *Lab) processes() error {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	// A thread of ours could be in another network than the process.
	threads, err := filepath.Glob("/proc/self/task/[0-9]*")
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, p := range append(processes, threads...) {
		for _, kind := range spaceKinds {
			// A process that has ended meanwhile has no link.
			link, err := os.Readlink(p + "/ns/" + kind)
			if err != nil {
				continue
			}
			s, ours := l.spaces[link]
			pid, err := strconv.Atoi(filepath.Base(p))
			if !ours || err != nil || s.ended != 0 && startedAfter(pid, s.ended) || !ofThisProcess(pid) {
				continue
			}
			name, _ := os.ReadFile(p + "/comm")
			errs = append(errs, fmt.Errorf("process %d (%s) is still in %s of host %s",
				pid, bytes.TrimSpace(name), link, s.host))
			break
		}
	}
	return errors.Join(errs...)
}

// ofThisProcess tells whether this process, or one that it started, has started
// pid, or whether pid is a thread of it. What a host started itself has ended
// with the host's first process; and the kernel gives numbers of namespaces
// that are gone to those of anybody, who may have been running before.
func ofThisProcess(pid int) bool {
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid)); err == nil {
		return true
	}
	for pid > 1 {
		if pid == os.Getpid() {
			return true
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(string(status), "\nPPid:\t")
		parent, _, _ := strings.Cut(rest, "\n")
		if pid, err = strconv.Atoi(parent); err != nil {
			return false
		}
	}
	return false
}

// startedAfter tells whether a process started later than a clock tick, or is
// gone.
func startedAfter(pid int, tick int64) bool {
	text, err := tempdir.StartTime(pid)
	if err != nil {
		return true
	}
	started, err := strconv.ParseInt(text, 10, 64)
	return err == nil && started >= tick
}

func (l *Lab) mounts() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.dir) {
			errs = append(errs, fmt.Errorf("a mount is left: %s", strings.TrimSpace(line)))
		}
	}
	return errors.Join(errs...)
}

// bootTimeout bounds the starting and the ending of a host, also on a machine
// that is busy with other tests.
const bootTimeout = 30 * time.Second
