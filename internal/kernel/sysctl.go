package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const procSys = "/proc/sys"

// The sysctls that turn packet forwarding on.
const (
	forwarding4 = "net/ipv4/ip_forward"
	forwarding6 = "net/ipv6/conf/all/forwarding"
)

// EnsureForwarding turns packet forwarding on, of the families that are asked
// for, where it is off. It answers with what it did.
func (k *Kernel) EnsureForwarding(ctx context.Context, v4, v6 bool) (repairs []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	err = k.inside(func() error {
		if v4 {
			more, err := ensureSysctl(forwarding4, "1")
			repairs = append(repairs, more...)
			if err != nil {
				return err
			}
		}
		if v6 {
			more, err := ensureForwarding6()
			repairs = append(repairs, more...)
			return err
		}
		return nil
	})
	return repairs, err
}

// ensureForwarding6 turns IPv6 forwarding on. A host that forwards ignores
// router advertisements unless accept_ra is 2 (ip-sysctl.rst), and would lose
// its own default route, so that is set first where they are accepted.
func ensureForwarding6() (repairs []string, err error) {
	have, err := readSysctl(forwarding6)
	if err != nil {
		return nil, fmt.Errorf("turn on IPv6 forwarding: %w: boot without ipv6.disable=1, or set enable_ipv6 to false", err)
	}
	if have == "1" {
		return nil, nil
	}
	conf := filepath.Join(procSys, "net/ipv6/conf")
	devices, err := os.ReadDir(conf)
	if err != nil {
		return nil, fmt.Errorf("list IPv6 devices: %w", err)
	}
	for _, d := range devices {
		// "all" and "default" are no devices, and lo has no neighbours.
		if slices.Contains([]string{"all", "default", "lo"}, d.Name()) {
			continue
		}
		key := "net/ipv6/conf/" + d.Name() + "/accept_ra"
		have, err := readSysctl(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the device has just gone
		}
		if err != nil {
			return repairs, err
		}
		if have != "1" {
			continue
		}
		more, err := ensureSysctl(key, "2")
		repairs = append(repairs, more...)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return repairs, err
		}
	}
	more, err := ensureSysctl(forwarding6, "1")
	return append(repairs, more...), err
}

// EnsureNoRedirects keeps the host from telling containers on the bridge that
// an address is on their own link: one that moves to another host later would
// be looked for there. Redirects are sent if either the device's setting or
// that of all devices says so; other devices have their own.
func (k *Kernel) EnsureNoRedirects(ctx context.Context, bridge string) (repairs []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	err = k.inside(func() error {
		for _, device := range []string{bridge, "all"} {
			more, err := ensureSysctl(sendRedirects(device), "0")
			repairs = append(repairs, more...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return repairs, err
}

// sendRedirects is the path of the sysctl of a device, or of all.
func sendRedirects(device string) string { return "net/ipv4/conf/" + device + "/send_redirects" }

// refuseRouterAdverts makes the host ignore router advertisements on a device
// where only containers or other agents could send them.
func refuseRouterAdverts(device string) error {
	_, err := ensureSysctl("net/ipv6/conf/"+device+"/accept_ra", "0")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no IPv6 on this device
	}
	return err
}

// ensureSysctl writes want to the sysctl with the path key under /proc/sys, in
// the namespace of the calling thread, unless it is there already.
func ensureSysctl(key, want string) (repairs []string, err error) {
	have, err := readSysctl(key)
	if err != nil {
		return nil, err
	}
	if have == want {
		return nil, nil
	}
	name := sysctlName(key)
	if err := os.WriteFile(filepath.Join(procSys, key), []byte(want), 0o644); err != nil {
		if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("set %s to %s: %w: set it on the host: sysctl -w %s=%s", name, want, err, name, want)
		}
		return nil, fmt.Errorf("set %s to %s: %w", name, want, err)
	}
	return []string{fmt.Sprintf("%s: %s set to %s", name, have, want)}, nil
}

func readSysctl(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join(procSys, key))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", sysctlName(key), err)
	}
	return strings.TrimSpace(string(b)), nil
}

// sysctlName is the name that the sysctl command knows key by. It writes a
// dot inside a device's name as a slash.
func sysctlName(key string) string {
	return strings.NewReplacer("/", ".", ".", "/").Replace(key)
}
