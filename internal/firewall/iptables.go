package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// family is an address family and the name that its programs begin with.
type family struct {
	v6      bool
	program string
}

var families = [2]family{{false, "iptables"}, {true, "ip6tables"}}

const (
	// lockWait is how many seconds iptables-restore waits for the lock that
	// all users of legacy iptables share.
	lockWait = "5"
	// runTimeout bounds one program, lock included, in a context without a
	// nearer deadline.
	runTimeout = 10 * time.Second
)

// systemDirs are searched after $PATH: whoever executes a CNI plugin often
// passes a $PATH without the directories of root's programs.
var systemDirs = [...]string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"}

// running is a program under way: it waits for the end, once, and returns what
// was printed.
type running func() (string, error)

// save returns all tables of a family. Asking for all takes one process, and
// creates no table that is not there.
func (f *Firewall) save(ctx context.Context, fam family) running {
	return f.start(ctx, fam.program+"-save", "")
}

// saveAll looks at both families at once. All of them must be waited for.
func (f *Firewall) saveAll(ctx context.Context) (out [len(families)]running) {
	for i, fam := range families {
		out[i] = f.save(ctx, fam)
	}
	return out
}

// restore writes changes; of each of them, all or nothing.
func (f *Firewall) restore(ctx context.Context, fam family, changes []change) error {
	var script strings.Builder
	var tables []string
	for _, ch := range changes {
		script.WriteString(ch.script)
		tables = append(tables, ch.table)
	}
	err := f.write(ctx, fam, script.String())
	// Of several, those before this one may have been written.
	if err != nil && len(changes) == 1 && strings.Contains(err.Error(), strings.TrimSpace(randomFully)) {
		err = f.write(ctx, fam, strings.ReplaceAll(script.String(), randomFully, ""))
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("writing our rules to table %s: %w", strings.Join(tables, ", "), err)
	if fam.v6 && len(tables) == 1 && tables[0] == "nat" && lacksTable(err.Error()) {
		err = fmt.Errorf("%w (the kernel has no IPv6 NAT: load the module ip6table_nat, or configure no IPv6 overlay)", err)
	}
	return err
}

func (f *Firewall) write(ctx context.Context, fam family, script string) error {
	_, err := f.exec(ctx, fam.program+"-restore", script, "--noflush", "-w", lockWait)
	return err
}

// lacksTable recognises what the legacy and the nft flavour say of a table
// that the kernel cannot have.
func lacksTable(message string) bool {
	for _, s := range []string{"unable to initialize table", "can't initialize", "TABLE_ADD failed", "CHAIN_ADD failed"} {
		if strings.Contains(message, s) {
			return true
		}
	}
	return false
}

// exec executes a program and returns what it prints.
func (f *Firewall) exec(ctx context.Context, name, stdin string, args ...string) (string, error) {
	return f.start(ctx, name, stdin, args...)()
}

// start starts a program, in the network namespace of the calling thread.
func (f *Firewall) start(ctx context.Context, name, stdin string, args ...string) running {
	path, err := f.find(name)
	if err != nil {
		return func() (string, error) { return "", err }
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A grandchild that keeps the pipes open must not keep us waiting.
	cmd.WaitDelay = time.Second
	startErr := cmd.Start()
	return func() (string, error) {
		defer cancel()
		err := startErr
		if err == nil {
			err = cmd.Wait()
		}
		if err == nil {
			return stdout.String(), nil
		}
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return "", &RunError{Program: name, Message: oneLine(stderr.String()), Err: err}
	}
}

// RunError is the failure of one of the iptables programs.
type RunError struct {
	Program string
	// Message is what it wrote to its standard error, in one line.
	Message string
	Err     error
}

func (e *RunError) Error() string {
	s := e.Program + ": " + oneLine(e.Err.Error())
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

func (e *RunError) Unwrap() error { return e.Err }

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.TrimSpace(s), func(r rune) bool { return r == '\n' }), "; ")
}

// Lacks fails, with ErrNotFound in the chain, where the host has no iptables
// programs of the address family.
func (f *Firewall) Lacks(v6 bool) error {
	fam := families[0]
	if v6 {
		fam = families[1]
	}
	_, err := f.find(fam.program + "-restore")
	return err
}

// find returns the path of a program.
func (f *Firewall) find(name string) (string, error) {
	for _, dir := range append(filepath.SplitList(f.Path), systemDirs[:]...) {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s %w in PATH %q or %s: install the package iptables", name, ErrNotFound, f.Path, strings.Join(systemDirs[:], ":"))
}
