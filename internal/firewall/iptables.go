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

// save returns all tables of a family. Asking for all takes one process, and
// creates no table that is not there.
func (f *Firewall) save(ctx context.Context, fam family) (string, error) {
	return f.run(ctx, fam, "save", "")
}

// restore writes ch, or nothing.
func (f *Firewall) restore(ctx context.Context, fam family, ch change) error {
	_, err := f.run(ctx, fam, "restore", ch.script, "--noflush", "-w", lockWait)
	if err != nil && strings.Contains(err.Error(), strings.TrimSpace(randomFully)) {
		_, err = f.run(ctx, fam, "restore", withoutRandomFullyAll(ch.script), "--noflush", "-w", lockWait)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("writing our rules to table %s: %w", ch.table, err)
	if fam.v6 && ch.table == "nat" && lacksTable(err.Error()) {
		err = fmt.Errorf("%w (the kernel has no IPv6 NAT: load the module ip6table_nat, or configure no IPv6 overlay)", err)
	}
	return err
}

func withoutRandomFullyAll(script string) string {
	return strings.ReplaceAll(script, randomFully, "")
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

// run executes <program>-<verb> and returns what it prints.
func (f *Firewall) run(ctx context.Context, fam family, verb, stdin string, args ...string) (string, error) {
	return f.exec(ctx, fam.program+"-"+verb, stdin, args...)
}

// exec executes a program and returns what it prints.
func (f *Firewall) exec(ctx context.Context, name, stdin string, args ...string) (string, error) {
	path, err := f.find(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A grandchild that keeps the pipes open must not keep us waiting.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return "", &RunError{Program: name, Message: oneLine(stderr.String()), Err: err}
	}
	return stdout.String(), nil
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
