package leaks

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside marks the process that runs the tests.
const inside = "DCOS_OVERLAY_LEAKS_TEST_INSIDE"

// TestMain runs the tests in a process namespace with a /proc of its own:
// what else there is on the machine, and may be looked at, is not their matter.
func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "leaks:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if os.Getenv(inside) != "" {
		err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		if errors.Is(err, unix.EINVAL) {
			// In a chroot / need be no mount; what counts is /proc, on which
			// another is mounted.
			err = unix.Mount("", "/proc", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err != nil {
			return 0, fmt.Errorf("keep mounts to ourselves: %w", err)
		}
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return 0, fmt.Errorf("mount /proc: %w", err)
		}
		return m.Run(), nil
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return 0, fmt.Errorf("start the tests in new namespaces (it takes root): %w", err)
	}
	return cmd.ProcessState.ExitCode(), nil
}
