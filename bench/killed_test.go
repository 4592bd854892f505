package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/bench/machine"
)

// ownerEnv makes the test's program own a machine and wait to be killed.
const ownerEnv = "DCOS_OVERLAY_BENCH_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) != "" {
		if err := own(); err != nil {
			fmt.Println(err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// own makes what a benchmark does, with a program that goes on, says which
// process that is, and waits for ever.
func own() error {
	if _, err := machine.TempDir(); err != nil {
		return err
	}
	return machine.Run(func(m *machine.Machine) error {
		host, err := m.Add("host")
		if err == nil {
			err = m.Start(host, "sh", "-c", "echo $$ >"+m.Dir+"/pid && mv "+m.Dir+"/pid "+m.Dir+"/started && exec sleep 1000")
		}
		if err != nil {
			return err
		}
		var pid []byte
		err = await("the program to start", func() bool {
			pid, err = os.ReadFile(m.Dir + "/started")
			return err == nil
		})
		if err != nil {
			return err
		}
		fmt.Printf("up %s", pid)
		select {}
	})
}

// await asks again and again whether what is awaited is there.
func await(what string, ok func() bool) error {
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting in vain for %s", what)
		}
	}
	return nil
}

// TestKilled kills -9 a process with a machine: its programs end with it, and
// the next machine removes what is left on the disk.
func TestKilled(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	before := points()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self)
	owner.Env = append(os.Environ(), ownerEnv+"=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, up := strings.CutPrefix(line, "up ")
	if killErr := owner.Process.Kill(); killErr != nil {
		t.Fatal(killErr)
	}
	_ = owner.Wait() // It was killed.
	if err != nil || !up {
		t.Fatalf("the owner says %q, %v", line, err)
	}
	if left := inTemp(t); len(left) != 2 {
		t.Errorf("a killed machine, and its programs' place, are %q", left)
	}
	if err := await("a killed machine's program to end", func() bool {
		// One that has ended and was not waited for yet has none.
		command, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/cmdline")
		return err != nil || len(command) == 0
	}); err != nil {
		t.Error(err)
	}

	if err := machine.Run(func(*machine.Machine) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if left := inTemp(t); len(left) > 0 {
		t.Errorf("the next machine leaves %q", left)
	}
	if after := points(); !slices.Equal(after, before) {
		t.Errorf("the machine had %q before, and has %q now", before, after)
	}
}

func inTemp(t *testing.T) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}
