package hostinit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Serve starts processes as the lab asks until the lab goes away, and reaps
// every orphan of the host meanwhile. It returns when the control socket is
// closed; its caller then exits, and with it the host.
func Serve() error {
	// Whoever kills the lab ends the host. The control socket's end says the
	// same, should the lab be dead already.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tying the host to the lab: %w", err)
	}
	unix.CloseOnExec(ControlFD)
	control, err := packetConn(ControlFD)
	if err != nil {
		return fmt.Errorf("opening the control socket: %w", err)
	}
	s := &server{children: map[int]chan unix.WaitStatus{}}
	go s.reap()
	if _, err := control.Write([]byte("{}")); err != nil {
		return fmt.Errorf("telling the lab that the host is up: %w", err)
	}
	for {
		req, files, err := receive(control)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		s.run(req, files)
	}
}

type server struct {
	// mu is held while a child is made and while children are reaped, so
	// that one that ends at once is known when it is reaped.
	mu       sync.Mutex
	children map[int]chan unix.WaitStatus
}

// reap waits for every child, ours and those that the kernel gave us.
func (s *server) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		s.mu.Lock()
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			if c, ok := s.children[pid]; ok {
				delete(s.children, pid)
				c <- status
			}
		}
		s.mu.Unlock()
	}
}

// run starts one process and returns; files are its socket and its stdio.
func (s *server) run(req Request, files []int) {
	conn, err := packetConn(files[0])
	if err != nil {
		closeAll(files[1:])
		return
	}
	pid, ended, err := s.start(req, files[1:])
	closeAll(files[1:])
	if err != nil {
		send(conn, Event{Error: err.Error()})
		conn.Close()
		return
	}
	send(conn, Event{PID: pid})
	go s.signals(conn, pid)
	go func() {
		status := <-ended
		e := Event{Exited: true, Code: status.ExitStatus()}
		if status.Signaled() {
			e.Signal = int(status.Signal())
		}
		send(conn, e)
		conn.Close()
	}()
}

func (s *server) start(req Request, stdio []int) (int, <-chan unix.WaitStatus, error) {
	if len(req.Args) == 0 {
		return 0, nil, errors.New("no program is named")
	}
	path, err := exec.LookPath(req.Args[0])
	if err != nil {
		return 0, nil, err
	}
	attr := &syscall.ProcAttr{
		Dir: req.Dir,
		Env: req.Env,
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if attr.Env == nil {
		attr.Env = os.Environ()
	}
	if req.NewNet {
		attr.Sys.Cloneflags = unix.CLONE_NEWNET
	}
	for _, fd := range stdio {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := syscall.ForkExec(path, req.Args, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("starting %s: %w", path, err)
	}
	ended := make(chan unix.WaitStatus, 1)
	s.children[pid] = ended
	return pid, ended, nil
}

// signals passes on what the lab sends until the process's socket is closed.
func (s *server) signals(conn *net.UnixConn, pid int) {
	buf := make([]byte, 1024)
	for {
		n, err := conn.Read(buf)
		if err != nil || n == 0 {
			return
		}
		var sig Signal
		if json.Unmarshal(buf[:n], &sig) != nil {
			return
		}
		s.mu.Lock()
		// A pid that is reaped may be another's by now.
		if _, alive := s.children[pid]; alive {
			target := pid
			if sig.Group {
				target = -pid
			}
			unix.Kill(target, unix.Signal(sig.Number))
		}
		s.mu.Unlock()
	}
}

// receive reads one request with its four descriptors; net.ErrClosed means
// that the lab has closed the socket.
func receive(control *net.UnixConn) (Request, []int, error) {
	buf, oob := make([]byte, MaxMessage), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := control.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		return Request{}, nil, net.ErrClosed
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return Request{}, nil, fmt.Errorf("reading a request's descriptors: %w", err)
	}
	if len(messages) != 1 {
		return Request{}, nil, fmt.Errorf("reading a request: %d control messages came with it, not 1", len(messages))
	}
	files, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return Request{}, nil, fmt.Errorf("reading a request's descriptors: %w", err)
	}
	if len(files) != 4 {
		return Request{}, nil, fmt.Errorf("reading a request: %d descriptors came with it, not 4", len(files))
	}
	for _, fd := range files {
		unix.CloseOnExec(fd)
	}
	var req Request
	if err := json.Unmarshal(buf[:n], &req); err != nil {
		return Request{}, nil, fmt.Errorf("reading a request: %w", err)
	}
	return req, files, nil
}

// send tells the lab; if it is gone, this host ends soon anyhow.
func send(conn *net.UnixConn, e Event) {
	data, err := json.Marshal(e)
	if err == nil {
		_, _ = conn.Write(data)
	}
}

// packetConn takes over the descriptor of a SOCK_SEQPACKET socket.
func packetConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "packets")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
