package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// newNamespace starts a process in a network namespace of its own, and returns
// the handle, which goes with the process.
func newNamespace(t testing.TB) (handle string, end func()) {
	t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("make a network namespace (it takes root): %v", err)
	}
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("end the namespace's process: %v", err)
		}
	}
	t.Cleanup(end)
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), end
}

func identify(t testing.TB, path string) ID {
	t.Helper()
	id, err := Identify(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func held(t testing.TB, id ID) bool {
	t.Helper()
	held, err := id.Held()
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func TestIdentify(t *testing.T) {
	handle, end := newNamespace(t)
	before := identify(t, "/proc/thread-self/ns/net")
	id := identify(t, handle)
	if id.Path != handle || id.Inode == 0 || id.Boot == "" {
		t.Errorf("incomplete: %+v", id)
	}
	if again := identify(t, handle); again != id {
		t.Errorf("%+v is %+v the second time", id, again)
	}
	if id.Inode == before.Inode || id.Cookie == before.Cookie {
		t.Errorf("%+v is not told from %+v", id, before)
	}
	if after := identify(t, "/proc/thread-self/ns/net"); after.Cookie != before.Cookie {
		t.Errorf("this thread is in another namespace than before")
	}
	if !held(t, id) {
		t.Error("the handle is there, and not held")
	}
	end()
	if held(t, id) {
		t.Error("the handle is gone, and held")
	}
}

// TestHandleOfAnother: all but the cookie may be another's by now.
func TestHandleOfAnother(t *testing.T) {
	handle, _ := newNamespace(t)
	for name, change := range map[string]func(*ID){
		"inode":  func(id *ID) { id.Inode++ },
		"device": func(id *ID) { id.Device++ },
		"cookie": func(id *ID) { id.Cookie++ },
		"boot":   func(id *ID) { id.Boot = "1d5c8d2c-0000-4000-8000-000000000000" },
	} {
		id := identify(t, handle)
		change(&id)
		if held(t, id) {
			t.Errorf("with another %s it is the same namespace", name)
		}
	}
	// A kernel without cookies, or an unknown boot, leave the rest to compare.
	id := identify(t, handle)
	id.Cookie, id.Boot = 0, ""
	if !held(t, id) {
		t.Error("without cookie and boot it is another namespace")
	}
}

func TestPathsOfNoNamespace(t *testing.T) {
	dir := t.TempDir()
	file, fifo, absent := filepath.Join(dir, "file"), filepath.Join(dir, "fifo"), filepath.Join(dir, "absent")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	own := identify(t, "/proc/self/ns/net")
	for path, want := range map[string]error{
		file: ErrNone, dir: ErrNone, fifo: ErrNone, "/proc/self/ns/mnt": ErrNone,
		absent: fs.ErrNotExist, filepath.Join(file, "below"): unix.ENOTDIR,
	} {
		if _, err := Identify(path); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
		id := own
		id.Path = path
		if held(t, id) {
			t.Errorf("%s is taken for the handle of a namespace", path)
		}
	}
	// What can't be looked at is not gone.
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	own.Path = loop
	if _, err := own.Held(); err == nil {
		t.Error("a handle that can't be opened counts as gone")
	}
}

func TestIsOwn(t *testing.T) {
	for path, want := range map[string]bool{"/proc/self/ns/net": true, "/proc/self/ns/mnt": false, "/nowhere": false, "/": false} {
		if got := IsOwn(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
