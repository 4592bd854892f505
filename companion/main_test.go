package main

import (
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dcos/dcos-overlay/companion/systemd"
)

// TestAlive: systemd hears of the first pass once, and then that all goes on.
func TestAlive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	env := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"}
	manager, err := systemd.FromEnv(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	tell := alive(manager, slog.New(slog.DiscardHandler))
	var heard []string
	for range 3 {
		tell()
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, string(buf[:n]))
	}
	if want := []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"}; !slices.Equal(heard, want) {
		t.Errorf("systemd hears %q, want %q", heard, want)
	}
}

// TestFlagsThatMakeNoSense are told before anything is done.
func TestFlagsThatMakeNoSense(t *testing.T) {
	for name, change := range map[string]func(*options){
		"release alone":   func(o *options) { o.release = true },
		"short interval":  func(o *options) { o.interval = 1 },
		"no grace":        func(o *options) { o.leakGrace = 0 },
		"no such format":  func(o *options) { o.logFormat = "xml" },
		"no agent's file": func(o *options) { o.agentConfig = filepath.Join(t.TempDir(), "absent.json") },
	} {
		o := options{interval: 1e10, leakGrace: 1e10, logFormat: "text", agentConfig: "/dev/null"}
		change(&o)
		if err := run(t.Context(), o); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}
