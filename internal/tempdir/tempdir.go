// Package tempdir makes temporary directories whose names tell which process
// they are of, so that what a killed one has left is known by its name. Labs of
// tests and benchmarks work in them.
package tempdir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Make makes a directory for as long as this process lasts, whose name begins
// with prefix. The path has no symbolic links in it.
func Make(prefix string) (string, error) {
	// A number is another process's some day, but not with the same start.
	started, err := StartTime(os.Getpid())
	if err != nil {
		return "", err
	}
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(temp, fmt.Sprintf("%s%d-%s-", prefix, os.Getpid(), started))
}

// Stale tells whether name is one that Make gave to a directory with that
// prefix, in a process that is gone. One that is just being made never is.
func Stale(prefix, name string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	parts := strings.Split(rest, "-")
	if !ok || len(parts) != 3 {
		return false
	}
	pid, err := strconv.Atoi(parts[0])
	if err != nil {
		return false
	}
	started, err := StartTime(pid)
	return errors.Is(err, fs.ErrNotExist) || err == nil && started != parts[1]
}

// AllStale are the paths of the directories with that prefix whose process is
// gone.
func AllStale(prefix string) ([]string, error) {
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(temp)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && Stale(prefix, e.Name()) {
			out = append(out, filepath.Join(temp, e.Name()))
		}
	}
	return out, nil
}

// StartTime is when a process started, in clock ticks since boot. The error is
// fs.ErrNotExist when there is no such process.
func StartTime(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// proc_pid_stat(5): field 22; the name, field 2, ends with the last
	// parenthesis and may hold anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("reading /proc/%d/stat: %d fields after the name", pid, len(fields))
	}
	return fields[19], nil
}
