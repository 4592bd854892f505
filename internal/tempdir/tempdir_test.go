package tempdir

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestStale(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	const prefix = "dcos-overlay-x-"
	own, err := Make(prefix)
	if err != nil {
		t.Fatal(err)
	}
	started, err := StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// A process that has ended, and has been waited for, is gone.
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for name, stale := range map[string]bool{
		filepath.Base(own): false,
		fmt.Sprintf("%s%d-%s-7", prefix, gone.Process.Pid, started): true,
		// The number is this process's now.
		fmt.Sprintf("%s%d-1-7", prefix, os.Getpid()):                          true,
		fmt.Sprintf("%sy-%d-%s-7", prefix, gone.Process.Pid, started):         false,
		fmt.Sprintf("dcos-overlay-y-%d-%s-7", gone.Process.Pid, started):      false,
		fmt.Sprintf("%s%d-%s", prefix, gone.Process.Pid, started):             false,
		fmt.Sprintf("%sbin-of-%s", prefix, started):                           false,
		fmt.Sprintf("somebodys-%s%d-%s-7", prefix, gone.Process.Pid, started): false,
	} {
		if got := Stale(prefix, name); got != stale {
			t.Errorf("%s is stale: %t, want %t", name, got, stale)
		}
		path := filepath.Join(filepath.Dir(own), name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if stale {
			want = append(want, path)
		}
	}
	slices.Sort(want)
	if got, err := AllStale(prefix); err != nil || !slices.Equal(got, want) {
		t.Errorf("stale are %q, %v, want %q", got, err, want)
	}
}
