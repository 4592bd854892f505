package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/integration/lab/hostinit"
)

// Host is one little machine: namespaces under a first process of its own, the
// machine's programs, and files that it shares with nobody. /run and /tmp are
// empty at each start; every other file stays as long as the lab.
type Host struct {
	// Place runs programs in the host.
	Place

	// Name is its host name, Addr and Addr6 its underlay addresses.
	Name        string
	Addr, Addr6 netip.Addr

	lab *Lab
	dir string
	// started counts the host's lives.
	started int

	// life is what a power cut ends; mu guards it.
	mu sync.Mutex
	life
}

// life is a host from power on to power off. The zero value is off.
type life struct {
	// pid is that of the first process, as the machine numbers it.
	pid     int
	first   *os.Process
	control *net.UnixConn
	netns   netns.NsHandle
	// ended is closed when the first process, and so all of them, is gone.
	ended chan struct{}
}

// plainDirs are directories that are on the disk itself: Docker can't stack
// its layers on a host's, and a database should meet the real thing.
var plainDirs = []string{"/var/lib/docker", "/var/lib/dcos-overlay-coordinator"}

// hiddenPaths are where this project and its neighbours keep state or
// configuration; what the machine has there is no host's.
var hiddenPaths = []string{
	"/etc/dcos-overlay", "/var/lib/dcos-overlay", "/etc/cni", "/var/lib/cni",
	"/opt/cni", "/etc/docker", "/root/.docker", "/var/lib/mesos",
}

func (l *Lab) newHost(name string, addr, addr6 netip.Addr) *Host {
	h := &Host{Name: name, Addr: addr, Addr6: addr6, lab: l, dir: filepath.Join(l.dir, name)}
	h.Place = Place{host: h, name: name}
	return h
}

// PowerOn starts a host that is off.
func (h *Host) PowerOn(ctx context.Context) error {
	if err := h.boot(ctx); err != nil {
		return err
	}
	if err := h.joinUnderlay(); err != nil {
		return errors.Join(err, h.PowerOff())
	}
	h.lab.logf("host %s is up at %s, %s", h.Name, h.Addr, h.Addr6)
	return nil
}

// PowerOff ends every process of the host at once, as a power cut does. A host
// that is off stays so.
func (h *Host) PowerOff() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pid == 0 {
		return nil
	}
	before, err := uptime()
	if err != nil {
		return fmt.Errorf("ending host %s: %w", h.Name, err)
	}
	if err := h.first.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending host %s: %w", h.Name, err)
	}
	timeout := time.NewTimer(bootTimeout)
	defer timeout.Stop()
	select {
	case <-h.ended:
	case <-timeout.C:
		return fmt.Errorf("ending host %s: process %d is still there after %s", h.Name, h.pid, bootTimeout)
	}
	h.control.Close()
	h.netns.Close()
	h.life = life{}
	h.lab.markEnded(h, before)
	return nil
}

// Reboot is a power cut and a new start: processes, network and /run are new,
// all other files are as they were.
func (h *Host) Reboot(ctx context.Context) error {
	if err := h.PowerOff(); err != nil {
		return err
	}
	if err := h.PowerOn(ctx); err != nil {
		return fmt.Errorf("rebooting host %s: %w", h.Name, err)
	}
	return nil
}

// PID is the process number, on the machine, of the host's first process, with
// which nsenter(1) looks into the host; 0 if the host is off.
func (h *Host) PID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pid
}

// boot starts the host's first process and waits until it serves.
func (h *Host) boot(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pid != 0 {
		return fmt.Errorf("host %s is on already", h.Name)
	}
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return err
	}
	spec, err := json.Marshal(hostinit.Spec{
		Hostname: h.Name,
		Dir:      h.dir,
		Bin:      h.lab.bin,
		Plain:    plainDirs,
		Hide:     hiddenPaths,
		New:      h.started == 0,
	})
	if err != nil {
		return err
	}
	logFile, err := os.OpenFile(filepath.Join(h.dir, "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	control, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()

	cmd := exec.Command(filepath.Join(h.lab.bin, "probe"), "init", string(spec))
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{theirs} // hostinit.ControlFD
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  unix.SIGKILL,
		// A Ctrl-C at the terminal is for the tests, which then end us.
		Setsid: true,
	}
	done := make(chan error)
	h.lab.starts <- func() { done <- cmd.Start() }
	if err := <-done; err != nil {
		control.Close()
		return fmt.Errorf("starting host %s: %w", h.Name, err)
	}
	theirs.Close()
	ended := make(chan struct{})
	go func() {
		// It never ends well: it is killed, or its log says why.
		_ = cmd.Wait()
		close(ended)
	}()
	h.life = life{pid: cmd.Process.Pid, first: cmd.Process, control: control, netns: netns.None(), ended: ended}
	h.started++
	if err := h.await(ctx); err != nil {
		before, uptimeErr := uptime()
		_ = h.first.Kill()
		<-ended
		control.Close()
		h.life = life{}
		h.lab.markEnded(h, before)
		err = errors.Join(err, uptimeErr)
		text, _ := os.ReadFile(logFile.Name())
		return fmt.Errorf("starting host %s: %w: %s", h.Name, err, tail(string(text)))
	}
	return nil
}

// await waits for the first process to be ready, and opens the host's network
// namespace.
func (h *Host) await(ctx context.Context) error {
	deadline := time.Now().Add(bootTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := h.control.SetReadDeadline(deadline); err != nil {
		return err
	}
	n, err := h.control.Read(make([]byte, hostinit.MaxMessage))
	if err == nil && n == 0 {
		err = errors.New("its first process ended")
	}
	if err != nil {
		return err
	}
	if err := h.lab.remember(h); err != nil {
		return err
	}
	h.netns, err = netns.GetFromPid(h.pid)
	return err
}

// socketPair makes a connected pair of packet sockets, one for this process
// and one to give away.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "packets"), os.NewFile(uintptr(fds[1]), "packets")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// WriteFile writes a file in the host, with the directories above it.
func (h *Host) WriteFile(ctx context.Context, path string, data []byte) error {
	_, err := h.RunInput(ctx, data, "sh", "-c", `mkdir -p "$(dirname "$0")" && cat >"$0"`, path)
	return err
}

// ReadFile reads a file in the host.
func (h *Host) ReadFile(ctx context.Context, path string) ([]byte, error) {
	out, err := h.Run(ctx, "cat", path)
	return []byte(out), err
}

// Exists tells whether there is something at path in the host; a symbolic link
// to nothing is something.
func (h *Host) Exists(ctx context.Context, path string) (bool, error) {
	r, err := h.Exec(ctx, Command{Args: []string{"sh", "-c", `[ -e "$0" ] || [ -L "$0" ]`, path}})
	if err != nil {
		return false, err
	}
	return r.Code == 0, nil
}
