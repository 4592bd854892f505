// Package lab makes hosts out of namespaces on one machine and runs the
// project's real programs in them.
//
// A Host has its own network, mounts, processes and files: what is written in
// it, wherever, is not seen on the machine, and default paths can be used in
// every host at once. All hosts, and one more that is "outside", are joined by
// an underlay of their own. Nothing is made in the machine's own namespaces,
// and all of it ends with the process that owns the Lab, however that ends.
//
// A Lab needs root, and what scripts/install-deps.sh installs.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a Lab.
type Options struct {
	// Bin is the directory of the programs to run; see Build.
	Bin string
	// Log gets a line for each thing done; nil means nowhere.
	Log io.Writer
}

// Lab is a set of hosts on one underlay. Its methods may be called from
// several goroutines.
type Lab struct {
	// Outside is the rest of the world: the hosts' default router, at
	// Router4 and Router6, and a server at World4 and World6 that knows the
	// underlay but no overlay.
	Outside *Host

	bin, dir string

	// starts are run one by one in a thread that lives as long as the lab:
	// a host's first process dies with the thread that made it.
	starts chan func()

	mu sync.Mutex
	// log is written to under mu.
	log io.Writer
	// hosts are all but Outside.
	hosts []*Host
	// spaces are the namespaces that any host ever had, as /proc names them.
	spaces map[string]space
	closed bool
}

// New makes a lab without hosts. It first removes what labs of processes that
// are gone have left: directories and cgroups.
func New(opts Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("making a lab: only root can; run the tests as root")
	}
	bin, err := filepath.EvalSymlinks(opts.Bin)
	if err == nil {
		bin, err = filepath.Abs(bin)
	}
	if err == nil {
		_, err = os.Stat(filepath.Join(bin, "probe"))
	}
	if err != nil {
		return nil, fmt.Errorf("making a lab: the programs must be built first: %w", err)
	}
	dir, err := TempDir()
	if err != nil {
		return nil, fmt.Errorf("making a lab: %w", err)
	}
	l := &Lab{
		bin:    bin,
		dir:    dir,
		log:    opts.Log,
		starts: make(chan func()),
		spaces: map[string]space{},
	}
	if l.log == nil {
		l.log = io.Discard
	}
	go func() {
		// The lock is not undone: the thread ends with the goroutine, and is
		// no other's in between.
		runtime.LockOSThread()
		for start := range l.starts {
			start()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	l.Outside = l.newHost("outside", Router4, Router6)
	if err := l.openOutside(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("making a lab: %w", err), l.Close())
	}
	return l, nil
}

// openOutside starts the outside host and looks after stale labs, for which it
// lends its cgroup mounts.
func (l *Lab) openOutside(ctx context.Context) error {
	if err := l.Outside.boot(ctx); err != nil {
		return err
	}
	if err := l.Outside.becomeOutside(); err != nil {
		return err
	}
	return l.removeStale()
}

// AddHost makes a host and starts it. Its name is its host name, at most
// maxName letters, digits or dashes; addr is its underlay address, out of
// Underlay4, from which Underlay6's follows (172.17.1.2 has fd00:17::102).
func (l *Lab) AddHost(ctx context.Context, name string, addr netip.Addr) (*Host, error) {
	l.mu.Lock()
	if err := l.checkNew(name, addr); err != nil {
		l.mu.Unlock()
		return nil, fmt.Errorf("adding host %s: %w", name, err)
	}
	h := l.newHost(name, addr, addr6(addr))
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	if err := h.PowerOn(ctx); err != nil {
		return nil, fmt.Errorf("adding host %s: %w", name, err)
	}
	return h, nil
}

// checkNew tells whether a host may be added; l.mu is held.
func (l *Lab) checkNew(name string, addr netip.Addr) error {
	if len(name) == 0 || len(name) > maxName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("a name is 1 to %d lower-case letters, digits or dashes", maxName)
	}
	if !Underlay4.Contains(addr) || addr == Router4 {
		return fmt.Errorf("%s is not a free address of the underlay, %s", addr, Underlay4)
	}
	if l.closed {
		return errors.New("the lab is closed")
	}
	for _, h := range slices.Concat(l.hosts, []*Host{l.Outside}) {
		if h.Name == name || h.Addr == addr {
			return fmt.Errorf("host %s at %s is there already", h.Name, h.Addr)
		}
	}
	return nil
}

// Hosts are those that were added, in that order.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.hosts)
}

// Close ends every host and removes what the lab made. It returns an error
// that lists what is left all the same. Closing again does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()

	var errs []error
	for _, h := range l.Hosts() {
		errs = append(errs, h.PowerOff())
	}
	if l.Outside.PID() != 0 {
		errs = append(errs, l.removeCgroups(func(name string) bool { return name == filepath.Base(l.dir) }))
	}
	errs = append(errs, l.Outside.PowerOff())
	close(l.starts)
	errs = append(errs, l.leftovers())
	errs = append(errs, l.removeDirs(func(name string) bool { return name == filepath.Base(l.dir) }))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the lab: %w", err)
	}
	return nil
}

// logf writes one line of the lab's log.
func (l *Lab) logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.log, "%s lab: %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// untilTimeout bounds an Until whose caller sets no deadline. It only costs when
// something is wrong, and is long for a machine that is busy with other tests.
const untilTimeout = 3 * time.Minute

// Until calls f again and again until it succeeds. When ctx ends first, its
// error says what was awaited and what f said last. A ctx without deadline ends
// after untilTimeout.
func Until(ctx context.Context, what string, f func(context.Context) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, untilTimeout)
		defer cancel()
	}
	// Often enough not to slow a test, seldom enough not to load a machine.
	const pause = 20 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last: %w", what, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
