// Package sandbox tells one network namespace from every other, even after
// its handle is gone and its numbers belong to another namespace.
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// bootPath is a number that the kernel makes anew at each boot (proc(5)).
const bootPath = "/proc/sys/kernel/random/boot_id"

// ErrNone says that what is at a path is no network namespace.
var ErrNone = errors.New("no network namespace")

// ID is a network namespace. Two IDs of one namespace may differ in Path.
type ID struct {
	// Path is the handle by which it was first seen.
	Path string `json:"path"`
	// Device and Inode are those of its file in nsfs; the kernel gives the
	// inode's number to another namespace when this one is gone.
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	// Cookie is given only once in a boot (SO_NETNS_COOKIE); 0 where the
	// kernel, before 5.14, has none.
	Cookie uint64 `json:"cookie,omitempty"`
	// Boot is the boot_id that the rest is of; empty if unknown.
	Boot string `json:"boot,omitempty"`
}

// Identify tells which namespace the handle at path leads to; ErrNone when it
// leads to something else.
func Identify(path string) (ID, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return ID{}, fmt.Errorf("open network namespace: %w", err)
	}
	f, err := open(path)
	if err != nil {
		return ID{}, fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	id := ID{Path: path, Boot: boot()}
	if id.Device, id.Inode, err = numbers(f); err == nil {
		id.Cookie, err = cookie(f)
	}
	if err != nil {
		return ID{}, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return id, nil
}

// IsOwn tells whether path leads to this process's own network namespace.
func IsOwn(path string) bool {
	fi, err := os.Stat(path)
	own, ownErr := os.Stat("/proc/self/ns/net")
	return err == nil && ownErr == nil && os.SameFile(fi, own)
}

// Held tells whether there still is this namespace's handle at its path. An
// error means that it can't be told.
func (id ID) Held() (bool, error) {
	f, err := open(id.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for network namespace: %w", err)
	}
	defer f.Close()
	return id.Is(f)
}

// Is tells whether f is this namespace.
func (id ID) Is(f *os.File) (bool, error) {
	device, inode, err := numbers(f)
	if errors.Is(err, ErrNone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at network namespace %s: %w", f.Name(), err)
	}
	if device != id.Device || inode != id.Inode || !id.OfThisBoot() {
		return false, nil
	}
	if id.Cookie == 0 {
		return true, nil
	}
	c, err := cookie(f)
	if errors.Is(err, ErrNone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at network namespace %s: %w", f.Name(), err)
	}
	return c == id.Cookie, nil
}

// OfThisBoot tells whether the namespace can still be there: none outlives
// the kernel.
func (id ID) OfThisBoot() bool {
	now := boot()
	return now == "" || id.Boot == "" || now == id.Boot
}

func boot() string {
	// Without it an ID is less sure, and no container fails for that.
	data, _ := os.ReadFile(bootPath)
	return strings.TrimSpace(string(data))
}

// open does not wait: a FIFO may have taken the handle's path.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func numbers(f *os.File) (device, inode uint64, err error) {
	var of unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &of); err != nil {
		return 0, 0, err
	}
	if of.Type != unix.NSFS_MAGIC {
		return 0, 0, ErrNone
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	return uint64(st.Dev), st.Ino, nil
}

// cookie enters the namespace for a moment. When the way back fails, the
// thread stays locked, and the runtime ends it with the goroutine.
func cookie(f *os.File) (uint64, error) {
	runtime.LockOSThread()
	back, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return 0, err
	}
	defer back.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		// What setns(2) says of a namespace of another kind.
		if errors.Is(err, unix.EINVAL) {
			return 0, ErrNone
		}
		return 0, fmt.Errorf("enter it: %w", err)
	}
	c, err := ownCookie()
	if backErr := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); backErr != nil {
		return 0, errors.Join(err, fmt.Errorf("return to the host's namespace: %w", backErr))
	}
	runtime.UnlockOSThread()
	return c, err
}

// ownCookie is that of the thread's own namespace.
func ownCookie() (uint64, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket in it: %w", err)
	}
	defer unix.Close(s)
	c, err := unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read its cookie: %w", err)
	}
	return c, nil
}
