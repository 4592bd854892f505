package mountns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroups mounts the hierarchies that the kernel has, as a /proc/self/cgroup
// lists them, where Docker and systemd look for them. The machine's own mounts
// are not used, for a chroot may have none.
func Cgroups(at, list string) error {
	var v1 []string
	for line := range strings.Lines(list) {
		// cgroups(7): hierarchy-ID:controller-list:path; version 2 has an
		// empty list.
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] != "" {
			v1 = append(v1, f[1])
		}
	}
	if len(v1) == 0 {
		return Mount("cgroup2", at, 0, "")
	}
	if err := Mount("tmpfs", at, 0, "mode=755"); err != nil {
		return err
	}
	for _, controllers := range v1 {
		name, options := controllers, controllers
		if named, ok := strings.CutPrefix(controllers, "name="); ok {
			name, options = named, "none,"+controllers
		}
		if err := Mount("cgroup", filepath.Join(at, name), 0, options); err != nil {
			return err
		}
		if single := strings.Split(name, ","); len(single) > 1 {
			for _, s := range single {
				if err := os.Symlink(name, filepath.Join(at, s)); err != nil {
					return err
				}
			}
		}
	}
	return Mount("cgroup2", filepath.Join(at, "unified"), 0, "")
}

// Mount mounts a file system of a kind that needs no device, and makes the
// directory for it.
func Mount(kind, at string, flags uintptr, data string) error {
	// EEXIST of a directory inside sysfs is no matter; a missing one is told
	// by the mount.
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kind, at, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s (%s) at %s: %w", kind, data, at, err)
	}
	return nil
}
