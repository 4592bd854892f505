package kernel

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestForwarding(t *testing.T) {
	k := newKernel(t)
	ip(t, "link add uplink type veth peer name other")
	for key, value := range map[string]string{
		"net/ipv4/ip_forward":             "0",
		"net/ipv6/conf/all/forwarding":    "0",
		"net/ipv6/conf/uplink/accept_ra":  "1",
		"net/ipv6/conf/other/accept_ra":   "0",
		"net/ipv6/conf/default/accept_ra": "1",
	} {
		if _, err := ensureSysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
	repairs, err := k.EnsureForwarding(context.Background(), true, true)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, strings.Join(repairs, "\n"), "net.ipv4.ip_forward: 0 set to 1",
		"net.ipv6.conf.all.forwarding: 0 set to 1", "net.ipv6.conf.uplink.accept_ra: 1 set to 2")
	for key, want := range map[string]string{
		"net/ipv4/ip_forward":             "1",
		"net/ipv6/conf/all/forwarding":    "1",
		"net/ipv6/conf/uplink/accept_ra":  "2",
		"net/ipv6/conf/other/accept_ra":   "0",
		"net/ipv6/conf/default/accept_ra": "1",
	} {
		if got, err := readSysctl(key); err != nil || got != want {
			t.Errorf("%s is %s, %v", key, got, err)
		}
	}
	if again, err := k.EnsureForwarding(context.Background(), true, true); err != nil || len(again) > 0 {
		t.Errorf("a second time: %v, %v", again, err)
	}
}

func TestForwardingOneFamily(t *testing.T) {
	k := newKernel(t)
	if _, err := ensureSysctl("net/ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	if repairs, err := k.EnsureForwarding(context.Background(), true, false); err != nil || len(repairs) != 1 {
		t.Errorf("got %v, %v", repairs, err)
	}
	if got, err := readSysctl("net/ipv6/conf/all/forwarding"); err != nil || got != "0" {
		t.Errorf("IPv6 forwarding is %s, %v", got, err)
	}
}

// TestForwardingReadOnly mounts /proc/sys read-only, as in a container. The
// mounts are of one thread, which ends with the goroutine.
func TestForwardingReadOnly(t *testing.T) {
	type result struct{ setup, got error }
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked
		var r result
		ns, err := netns.New()
		if err != nil {
			done <- result{setup: err}
			return
		}
		defer ns.Close()
		k, err := Open()
		if err != nil {
			done <- result{setup: err}
			return
		}
		defer k.Close()
		_, err = ensureSysctl("net/ipv4/ip_forward", "0")
		r.setup = errors.Join(err,
			unix.Unshare(unix.CLONE_NEWNS),
			// The mount below is one on /proc, which therefore decides
			// whether others see it; in a chroot / may be no mount at all.
			unix.Mount("", "/proc", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount(procSys, procSys, "", unix.MS_BIND, ""),
			unix.Mount(procSys, procSys, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		if r.setup == nil {
			_, r.got = k.EnsureForwarding(context.Background(), true, false)
		}
		done <- r
	}()
	r := <-done
	if r.setup != nil {
		t.Fatal(r.setup)
	}
	if !errors.Is(r.got, unix.EROFS) {
		t.Fatalf("got %v", r.got)
	}
	contains(t, r.got.Error(), "set net.ipv4.ip_forward to 1", "sysctl -w net.ipv4.ip_forward=1")
}

func TestSysctlName(t *testing.T) {
	if got := sysctlName("net/ipv6/conf/eth0.5/accept_ra"); got != "net.ipv6.conf.eth0/5.accept_ra" {
		t.Error(got)
	}
}
