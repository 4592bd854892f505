package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func from(t *testing.T, env map[string]string) Manager {
	t.Helper()
	m, err := FromEnv(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNotify(t *testing.T) {
	for _, name := range []string{
		filepath.Join(t.TempDir(), "notify"),
		"@dcos-overlay-notify-test-" + strconv.Itoa(os.Getpid()),
	} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		m := from(t, map[string]string{"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())})
		if m.Watchdog() != 3*time.Second {
			t.Errorf("the watchdog's time is %s", m.Watchdog())
		}
		for _, say := range []struct {
			say  func() error
			want string
		}{{m.Ready, "READY=1"}, {m.Alive, "WATCHDOG=1"}, {m.Stopping, "STOPPING=1"}} {
			if err := say.say(); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := conn.Read(buf)
			if err != nil || string(buf[:n]) != say.want {
				t.Errorf("heard %q, %v; want %q", buf[:n], err, say.want)
			}
		}
	}
}

func TestNobodyListens(t *testing.T) {
	m := from(t, nil)
	for _, say := range []func() error{m.Ready, m.Alive, m.Stopping} {
		if err := say(); err != nil {
			t.Error(err)
		}
	}
	// A watchdog that is another process's.
	m = from(t, map[string]string{"NOTIFY_SOCKET": "/nowhere/socket", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
	if err := m.Alive(); err != nil {
		t.Error(err)
	}
	if err := m.Ready(); err == nil {
		t.Error("a socket that is not there is no error")
	}
	if _, err := FromEnv(func(k string) string { return map[string]string{"WATCHDOG_USEC": "soon"}[k] }); err == nil {
		t.Error("a watchdog's time that is no number is no error")
	}
}
