// Package systemd tells a service manager how its daemon fares, as
// sd_notify(3) says. Without one it does nothing.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// Manager is who started the daemon.
type Manager struct {
	// socket is empty where nobody listens.
	socket   string
	watchdog time.Duration
}

// FromEnv finds the manager by what it has put into the environment.
func FromEnv(getenv func(string) string) (Manager, error) {
	m := Manager{socket: getenv("NOTIFY_SOCKET")}
	usec := getenv("WATCHDOG_USEC")
	// The watchdog may be meant for a parent of this process.
	if pid := getenv("WATCHDOG_PID"); usec == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return m, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 {
		return m, fmt.Errorf("WATCHDOG_USEC is %q: want a number of microseconds", usec)
	}
	m.watchdog = time.Duration(n) * time.Microsecond
	return m, nil
}

// Watchdog is after what time without a word from Alive the manager takes the
// daemon for hung; 0 when it does not watch.
func (m Manager) Watchdog() time.Duration { return m.watchdog }

// Ready says that the daemon has started up.
func (m Manager) Ready() error { return m.send("READY=1") }

// Stopping says that it ends, as it should.
func (m Manager) Stopping() error { return m.send("STOPPING=1") }

// Alive says that it does not hang, if the manager wants to know.
func (m Manager) Alive() error {
	if m.watchdog == 0 {
		return nil
	}
	return m.send("WATCHDOG=1")
}

func (m Manager) send(state string) error {
	if m.socket == "" {
		return nil
	}
	// A leading @ stands for the abstract namespace, here as in package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		_, err = conn.Write([]byte(state))
	}
	if err != nil {
		return fmt.Errorf("tell the service manager %s: %w", state, err)
	}
	return nil
}
