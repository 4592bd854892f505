package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/integration/lab/hostinit"
)

// Place is where programs run: a host, or the network of a container in it.
// Programs always see the host's files.
type Place struct {
	host *Host
	// name is for messages.
	name string
	// prefix is a command that runs its arguments in this place.
	prefix []string
}

// Command is a program to run to its end.
type Command struct {
	Args []string
	// Env is the whole environment; nil means the host's own, in which PATH
	// begins with the lab's programs.
	Env []string
	// Dir is the working directory; empty means /.
	Dir   string
	Stdin []byte
}

// Result is what a Command did.
type Result struct {
	Stdout, Stderr string
	// Code is the exit status, or 128 and the signal's number.
	Code int
}

// execTimeout bounds a command that the caller sets no deadline for, so that a
// hanging one is told by its name.
const execTimeout = 2 * time.Minute

// Exec runs a command to its end. A status that is not zero is no error here.
// When ctx ends first, the command and the group of processes it leads are
// killed.
func (p *Place) Exec(ctx context.Context, c Command) (Result, error) {
	r, err := p.exec(ctx, c)
	if err != nil {
		return r, fmt.Errorf("%s: %s: %w", p.name, line(c.Args), err)
	}
	p.host.lab.logf("%s$ %s -> %d", p.name, line(c.Args), r.Code)
	return r, nil
}

func (p *Place) exec(ctx context.Context, c Command) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	// Files in memory take the output: unlike pipes, they need nobody to
	// read them, and don't wait for a child that outlives the command.
	var stdio [3]*os.File
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			return Result{}, fmt.Errorf("making %s: %w", name, err)
		}
		stdio[i] = os.NewFile(uintptr(fd), name)
		defer stdio[i].Close()
	}
	if _, err := stdio[0].Write(c.Stdin); err != nil {
		return Result{}, err
	}
	if _, err := stdio[0].Seek(0, io.SeekStart); err != nil {
		return Result{}, err
	}
	proc, err := p.spawn(hostinit.Request{Args: c.Args, Env: c.Env, Dir: c.Dir}, stdio)
	if err != nil {
		return Result{}, err
	}
	select {
	case <-proc.done:
	case <-ctx.Done():
		_ = proc.send(hostinit.Signal{Number: int(unix.SIGKILL), Group: true})
		// SIGKILL can't be refused; a host that went down ends it, too.
		<-proc.done
		err = ctx.Err()
	}
	var r Result
	for i, text := range []*string{&r.Stdout, &r.Stderr} {
		// Not Seek: the offset is shared with whoever still writes.
		data, readErr := io.ReadAll(io.NewSectionReader(stdio[i+1], 0, 1<<40))
		err = errors.Join(err, readErr)
		*text = string(data)
	}
	if err != nil {
		return r, fmt.Errorf("%w: %s", err, tail(r.Stderr))
	}
	r.Code = proc.code
	return r, proc.lost
}

// Run runs a command and returns what it prints; when it fails, the error has
// its stderr.
func (p *Place) Run(ctx context.Context, args ...string) (string, error) {
	return p.RunInput(ctx, nil, args...)
}

// RunInput is Run with something on the command's stdin.
func (p *Place) RunInput(ctx context.Context, stdin []byte, args ...string) (string, error) {
	r, err := p.Exec(ctx, Command{Args: args, Stdin: stdin})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%s: %s: exit status %d: %s", p.name, line(args), r.Code, tail(r.Stderr+r.Stdout))
	}
	return r.Stdout, err
}

// Start starts a program that goes on. Its output goes to a file that is named
// for it, and is appended to if there was one of that name before.
func (p *Place) Start(ctx context.Context, name string, args ...string) (*Process, error) {
	return p.start(ctx, name, hostinit.Request{Args: args})
}

func (p *Place) start(ctx context.Context, name string, req hostinit.Request) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: starting %s: %w", p.name, name, err)
	}
	logs := filepath.Join(p.host.dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(filepath.Join(logs, strings.ReplaceAll(name, "/", "-")+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	info, err := out.Stat()
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	proc, err := p.spawn(req, [3]*os.File{null, out, out})
	if err != nil {
		return nil, fmt.Errorf("%s: starting %s: %w", p.name, name, err)
	}
	proc.Name, proc.log, proc.begin = name, out.Name(), info.Size()
	p.host.lab.logf("%s$ %s & (%s, process %d)", p.name, line(req.Args), name, proc.PID)
	return proc, nil
}

// spawn has the host's first process start a program.
func (p *Place) spawn(req hostinit.Request, stdio [3]*os.File) (*Process, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	req.Args = append(append([]string(nil), p.prefix...), req.Args...)
	data, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	if len(data) > hostinit.MaxMessage {
		return nil, fmt.Errorf("the command has %d bytes; more than %d must go to its stdin", len(data), hostinit.MaxMessage)
	}
	rights := unix.UnixRights(int(theirs.Fd()), int(stdio[0].Fd()), int(stdio[1].Fd()), int(stdio[2].Fd()))
	if err := p.host.post(data, rights); err != nil {
		conn.Close()
		return nil, err
	}
	theirs.Close()
	proc := &Process{place: p, conn: conn, done: make(chan struct{})}
	e, err := proc.next()
	if err == nil && e.Error != "" {
		err = errors.New(e.Error)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	proc.PID = e.PID
	go proc.watch()
	return proc, nil
}

// post sends a request to the first process.
func (h *Host) post(data, rights []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pid == 0 {
		return fmt.Errorf("host %s is off", h.Name)
	}
	if _, _, err := h.control.WriteMsgUnix(data, rights, nil); err != nil {
		return fmt.Errorf("asking host %s: %w", h.Name, err)
	}
	return nil
}

// line is a command as a line of a log or of a message.
func line(args []string) string {
	return strings.Join(strings.Fields(strings.Join(args, " ")), " ")
}
