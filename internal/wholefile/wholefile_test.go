package wholefile

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, want := range []string{"one", ""} {
		if err := Write(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("it holds %q, %v; want %q", got, err, want)
		}
	}
}

// TestErrorsAreTheSame: whoever tells only what is new goes by the text.
func TestErrorsAreTheSame(t *testing.T) {
	dir := t.TempDir()
	directory := filepath.Join(dir, "directory")
	if err := os.MkdirAll(filepath.Join(directory, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, cause := range map[string]error{
		filepath.Join(dir, "none", "file"): syscall.ENOENT,
		directory:                          syscall.EEXIST,
	} {
		for range 2 {
			err := Write(path, nil)
			if want := "write " + path + ": " + cause.Error(); !errors.Is(err, cause) || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	}
}
