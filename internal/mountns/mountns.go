// Package mountns keeps the mounts of a thread apart from the machine's, also
// where the machine's root is a chroot, and so need be no mount itself nor have
// any. Tests, their hosts and benchmarks lay files of their own over the
// machine's by it.
package mountns

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Own gives the calling thread a mount namespace of its own, of whose mounts
// nobody else sees anything. Root and working directory stay. The goroutine
// must be locked to the thread and never be unlocked, so that the thread ends
// with it. It takes root.
func Own() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	here, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the working directory: %w", err)
	}
	defer unix.Close(here)
	if err := LeaveChroot(); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("returning to the machine's root: %w", err)
	}
	if err := unix.Fchdir(here); err != nil {
		return fmt.Errorf("returning to the working directory: %w", err)
	}
	return nil
}

// LeaveChroot makes the calling thread's root that of its mount namespace, all
// mounts private, and the former root the working directory. In a chroot
// without it, mounts could not be made private nor the root be changed: the
// mount that / is on is out of reach there.
func LeaveChroot() error {
	machine, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the machine's root: %w", err)
	}
	defer unix.Close(machine)
	ns, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the mount namespace (is /proc mounted?): %w", err)
	}
	defer unix.Close(ns)
	// Root and working directory are shared between threads, and setns wants
	// them unshared.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unsharing the thread's root: %w", err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("entering the mount namespace's root: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Fchdir(machine); err != nil {
		return fmt.Errorf("returning to the machine's root: %w", err)
	}
	return nil
}
