// Package machine is what measurements are made on: a thread with mounts and
// network of its own, hosts and containers that are network namespaces, and
// programs that run in them. Nothing of it is left when the thread ends.
package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/mountns"
	"github.com/dcos/dcos-overlay/internal/tempdir"
)

const (
	// dirPrefix begins the names of the benchmark's directories.
	dirPrefix = "dcos-overlay-bench-"
	// pointsFile is the list of the directories that the machine was given to
	// mount on, in Machine.Dir.
	pointsFile = "points"
	// netnsDir is where iproute2 and runtimes keep handles of namespaces.
	netnsDir = "/run/netns"
	// endTimeout bounds how long a program may take that is told to end.
	endTimeout = 10 * time.Second
)

// Machine is used by the goroutine that Run made it for alone.
type Machine struct {
	// Home is the machine's own network.
	Home *Place
	// Dir is on a real disk, and goes away.
	Dir string

	programs []*exec.Cmd
}

// Place is a network namespace: a host's or a container's.
type Place struct {
	Name string
	// Path is its handle.
	Path string

	ns netns.NsHandle
}

// TempDir makes a directory for the programs that a machine runs. The next Run
// removes it if the process that made it ends before it has.
func TempDir() (string, error) { return tempdir.Make(dirPrefix) }

// Run makes a machine and runs f on it. Whatever the machine changes in /run,
// /var/lib and /etc/dcos-overlay, nobody else sees. First it removes what was
// left by processes that were killed.
func Run(f func(*Machine) error) error {
	done := make(chan error)
	go func() {
		// The thread is never unlocked, so that it ends with the goroutine.
		runtime.LockOSThread()
		done <- run(f)
	}()
	return <-done
}

func run(f func(*Machine) error) (err error) {
	if err := removeStale(); err != nil {
		return fmt.Errorf("remove what a killed benchmark has left: %w", err)
	}
	dir, err := TempDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace (it takes root): %w", err)
	}
	if err := mountns.Own(); err != nil {
		return err
	}
	made, err := mounts(dir)
	defer func() { err = errors.Join(err, removePoints(made)) }()
	if err != nil {
		return err
	}
	m := &Machine{Dir: dir}
	defer func() { err = errors.Join(err, m.end()) }()
	ns, err := netns.Get()
	if err != nil {
		return err
	}
	m.Home = &Place{Name: "home", Path: "/proc/self/ns/net", ns: ns}
	if err := m.Command(m.Home, "ip", "link", "set", "lo", "up"); err != nil {
		return err
	}
	return f(m)
}

// mounts gives this thread files of its own where the programs keep theirs.
// What is of one boot is in memory, what outlives one on the disk. The answer
// is which directories it made on the machine for that, also when it fails.
func mounts(dir string) (made []string, err error) {
	point := func(path string) error {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		made = append(made, path)
		// Noted first: who is killed in between leaves no more than is noted.
		err := os.WriteFile(filepath.Join(dir, pointsFile), []byte(strings.Join(made, "\n")), 0o644)
		if err != nil {
			return err
		}
		return os.MkdirAll(path, 0o755)
	}
	for _, path := range []string{"/run", "/var/lib/cni"} {
		if err := point(path); err != nil {
			return made, err
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return made, fmt.Errorf("mount on %s: %w", path, err)
		}
	}
	for _, path := range []string{"/var/lib/dcos-overlay", "/etc/dcos-overlay"} {
		own := filepath.Join(dir, filepath.Base(filepath.Dir(path)))
		if err := errors.Join(os.MkdirAll(own, 0o755), point(path)); err != nil {
			return made, err
		}
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return made, fmt.Errorf("mount on %s: %w", path, err)
		}
	}
	return made, os.Mkdir(netnsDir, 0o755)
}

// removePoints takes the mounts from the directories that mounts made, and
// removes those that nobody has put anything into meanwhile.
func removePoints(made []string) error {
	var errs []error
	for _, path := range made {
		// Where the making failed, nothing is mounted.
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeStale removes what is left of machines whose process is gone. Their
// mounts and namespaces ended with it.
func removeStale() error {
	dirs, err := tempdir.AllStale(dirPrefix)
	errs := []error{err}
	for _, dir := range dirs {
		// A directory of programs has no such file.
		points, err := os.ReadFile(filepath.Join(dir, pointsFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, path := range strings.Fields(string(points)) {
			// Somebody may have put something there since, or mounted on it.
			err := os.Remove(path)
			if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// Add makes a network namespace with its loopback device up.
func (m *Machine) Add(name string) (*Place, error) {
	p := &Place{Name: name, Path: filepath.Join(netnsDir, name)}
	f, err := os.OpenFile(p.Path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return nil, err
	}
	f.Close()
	if p.ns, err = netns.New(); err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	err = unix.Mount("/proc/thread-self/ns/net", p.Path, "", unix.MS_BIND, "")
	if err == nil {
		err = m.Command(p, "ip", "link", "set", "lo", "up")
	}
	return p, errors.Join(err, netns.Set(m.Home.ns))
}

// Remove lets the namespace go with all that is in it.
func (m *Machine) Remove(p *Place) error {
	return errors.Join(p.ns.Close(), unix.Unmount(p.Path, unix.MNT_DETACH), os.Remove(p.Path))
}

// In runs f in the network of p.
func (m *Machine) In(p *Place, f func() error) error {
	if err := netns.Set(p.ns); err != nil {
		return fmt.Errorf("enter %s: %w", p.Name, err)
	}
	return errors.Join(f(), netns.Set(m.Home.ns))
}

// end stops what was started.
func (m *Machine) end() error {
	var errs []error
	for _, c := range m.programs {
		errs = append(errs, stop(c))
	}
	return errors.Join(errs...)
}

func stop(c *exec.Cmd) error {
	// One that has ended already is waited for all the same.
	_ = c.Process.Signal(unix.SIGTERM)
	kill := time.AfterFunc(endTimeout, func() { _ = c.Process.Kill() })
	defer kill.Stop()
	if err := c.Wait(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return fmt.Errorf("end %s: %w", c.Path, err)
		}
	}
	return nil
}
