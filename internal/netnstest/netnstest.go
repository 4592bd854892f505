// Package netnstest puts tests into network namespaces of their own, so that
// they meet a real kernel and leave nothing on the machine. It takes root.
package netnstest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
)

// Enter puts the test's goroutine into a fresh namespace, whose loopback
// device is up and which forwards nothing, until the test ends. Programs that it starts are there, too,
// for they are forked from the same thread; other goroutines are not.
func Enter(t testing.TB) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatalf("open the test's own network namespace: %v", err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make a network namespace (it takes root): %v", err)
	}
	t.Cleanup(func() {
		ns.Close()
		defer before.Close()
		if err := netns.Set(before); err != nil {
			// The thread stays locked, and ends with the test's goroutine.
			t.Errorf("leave the network namespace: %v", err)
			return
		}
		runtime.UnlockOSThread()
	})
	Run(t, "ip link set lo up")
	// A new namespace has of IPv4 what the machine has, which may forward.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
		t.Fatalf("turn packet forwarding off: %v", err)
	}
	return ns
}

// Run runs a command line, whose words have no blanks in them, in the calling
// goroutine's namespace, and answers what it prints. That it fails ends the
// test.
func Run(t testing.TB, line string) string {
	t.Helper()
	return Input(t, "", line)
}

// Input is Run with text on the program's standard input.
func Input(t testing.TB, text, line string) string {
	t.Helper()
	words := strings.Fields(line)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}
