// Package scripts tests the scripts that the Makefile runs.
package scripts

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// inTemp runs a shell's command as the Makefile runs tests.
func inTemp(t *testing.T, command string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), "./in-tempdir.sh", "sh", "-c", command)
	c.Stderr = os.Stderr
	return c
}

// held is a command with a directory of its own that waits for its input to end.
func held(t *testing.T) (c *exec.Cmd, dir string, end func()) {
	t.Helper()
	c = inTemp(t, `mkdir "$TMPDIR/left" && echo "$TMPDIR" && read line`)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return c, strings.TrimSpace(line), func() {
		in.Close()
		_ = c.Wait() // It may have been killed.
	}
}

// TestInTempdir: each run has a directory of its own, and what a killed one has
// left goes with the next, but not while something that it started still runs.
func TestInTempdir(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	_, first, endFirst := held(t)
	killed, second, endSecond := held(t)
	if first == second || filepath.Dir(first) != temp || filepath.Dir(second) != temp {
		t.Errorf("two at a time have %s and %s", first, second)
	}
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	want := func(when string, want ...string) {
		t.Helper()
		var left []string
		// What a killed one has started may take a moment to end.
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			var exit *exec.ExitError
			if err := inTemp(t, "exit 7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
				t.Fatalf("%s: the command's status is told as %v", when, err)
			}
			var err error
			if left, err = filepath.Glob(temp + "/*"); err != nil {
				t.Fatal(err)
			}
			if slices.Equal(left, want) {
				return
			}
		}
		t.Errorf("%s there are %q, want %q", when, left, want)
	}
	want("while both commands run", first, second)
	endSecond()
	want("when the killed one has ended", first)
	endFirst()
	want("when both have ended")
}
