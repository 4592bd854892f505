package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runTimeout bounds a program that is measured.
const runTimeout = time.Minute

// program is one that ends when the machine does, however that ends, and leaves
// nothing in a directory other than the machine's.
func (m *Machine) program(args []string) *exec.Cmd {
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), "TMPDIR="+m.Dir)
	// Death is the thread's that starts it, which is the machine's.
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return c
}

// Command runs a program in p to its end; an error has what it said.
func (m *Machine) Command(p *Place, args ...string) error {
	return m.In(p, func() error {
		out, err := m.program(args).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
		return nil
	})
}

// Start starts a program in p that runs until the machine ends. What it says
// goes to a file in Dir.
func (m *Machine) Start(p *Place, args ...string) error {
	return m.In(p, func() error {
		log, err := os.Create(filepath.Join(m.Dir, p.Name+"-"+filepath.Base(args[0])+".log"))
		if err != nil {
			return err
		}
		defer log.Close()
		c := m.program(args)
		c.Stdout, c.Stderr = log, log
		if err := c.Start(); err != nil {
			return err
		}
		m.programs = append(m.programs, c)
		return nil
	})
}

// Call is one run of a CNI plugin.
type Call struct {
	// Bin is the plugin's path, and the directory of those that it calls.
	Bin, Verb   string
	Conf        []byte
	Container   *Place
	ContainerID string
}

// Process is a plugin that was started.
type Process struct {
	call   Call
	cmd    *exec.Cmd
	out    *os.File
	began  time.Time
	ending chan ending
}

type ending struct {
	at  time.Time
	err error
}

// Exec runs a plugin on host to its end, and tells how long that took, from
// before the fork until the end is known, and what it printed.
func (m *Machine) Exec(host *Place, c Call) (took time.Duration, out []byte, err error) {
	r, err := m.Begin(host, c)
	if err != nil {
		return 0, nil, err
	}
	return r.End()
}

// Begin starts a plugin on host.
func (m *Machine) Begin(host *Place, c Call) (*Process, error) {
	r := &Process{call: c, ending: make(chan ending, 1)}
	// Files in memory cost the measured program least.
	in, err := memory(c.Conf)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if r.out, err = memory(nil); err != nil {
		return nil, err
	}
	r.cmd = exec.Command(c.Bin)
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = in, r.out, r.out
	r.cmd.Env = []string{
		"CNI_COMMAND=" + c.Verb, "CNI_CONTAINERID=" + c.ContainerID, "CNI_NETNS=" + c.Container.Path,
		"CNI_IFNAME=eth0", "CNI_PATH=" + filepath.Dir(c.Bin), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	err = m.In(host, func() error {
		r.began = time.Now()
		return r.cmd.Start()
	})
	if err != nil {
		return nil, errors.Join(err, r.out.Close())
	}
	go func() {
		kill := time.AfterFunc(runTimeout, func() { _ = r.cmd.Process.Kill() })
		defer kill.Stop()
		err := r.cmd.Wait()
		r.ending <- ending{time.Now(), err}
	}()
	return r, nil
}

// Began is when the plugin was started.
func (r *Process) Began() time.Time { return r.began }

// End waits for the plugin.
func (r *Process) End() (took time.Duration, out []byte, err error) {
	defer r.out.Close()
	e := <-r.ending
	out, readErr := io.ReadAll(io.NewSectionReader(r.out, 0, 1<<30))
	if e.err != nil {
		return 0, nil, fmt.Errorf("%s %s of %s: %w: %s", filepath.Base(r.call.Bin), r.call.Verb, r.call.ContainerID, e.err, bytes.TrimSpace(out))
	}
	return e.at.Sub(r.began), out, readErr
}

func memory(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("stdio", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "stdio")
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}
