package mountns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwn mounts something in a place that others see, under a root that is a
// mount and under one that is none.
func TestOwn(t *testing.T) {
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- ownTwice(dir)
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// ownTwice plays the machine in a mount namespace of its own, with a mount on
// dir that whoever has a copy of the namespace shares.
func ownTwice(dir string) error {
	chroot, place := dir+"/chroot", "/place"
	if err := Own(); err != nil {
		return err
	}
	if err := errors.Join(
		unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"),
		unix.Mount("", dir, "", unix.MS_SHARED, ""),
		os.MkdirAll(chroot+"/proc", 0o755),
		os.MkdirAll(chroot+place, 0o755),
		unix.Mount("/proc", chroot+"/proc", "", unix.MS_BIND, ""),
	); err != nil {
		return err
	}
	machine, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(machine)
	// This may be a chroot already.
	home, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(home)
	for root, at := range map[string]string{"/": chroot + place, chroot: place} {
		err := errors.Join(os.Chdir(dir), unix.Chroot(root))
		if err == nil {
			err = Own()
		}
		if err == nil {
			err = unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m")
		}
		if err != nil {
			return fmt.Errorf("under %s: %w", root, err)
		}
		inside, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil || !strings.Contains(string(inside), " "+at+" ") {
			return fmt.Errorf("under %s: the mount is not seen by who made it, or the root is another: %w\n%s", root, err, inside)
		}
		if cwd, err := os.Readlink("/proc/thread-self/cwd"); err != nil || root == "/" && cwd != dir {
			return fmt.Errorf("under %s: the working directory is %s, %w", root, cwd, err)
		}
		// This leaves every chroot, and the working directory.
		if err := errors.Join(unix.Setns(machine, unix.CLONE_NEWNS), unix.Fchdir(home), unix.Chroot(".")); err != nil {
			return err
		}
		outside, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil || strings.Contains(string(outside), chroot+place) {
			return fmt.Errorf("under %s: the machine sees the mount: %w\n%s", root, err, outside)
		}
	}
	return nil
}
