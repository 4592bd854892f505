package packaging

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// bareDebian installs the packages on a Debian that has nothing else, upgrades
// them, and purges them.
func bareDebian(t *testing.T, out string) {
	ownMounts(t)
	root := t.TempDir()
	base := strings.TrimSpace(command(t, "", "../scripts/bare-debian.sh"))
	command(t, "", "tar", "-C", root, "-xf", base)
	d := debian{root}
	before := d.files(t)

	debs := []string{"dpkg", "-i"}
	for _, p := range []string{"dcos-overlay-agent", "dcos-overlay-coordinator", "dcos-overlayctl"} {
		name := p + "_" + debVersion + "_" + runtime.GOARCH + ".deb"
		command(t, "", "cp", filepath.Join(out, name), filepath.Join(root, "tmp"))
		debs = append(debs, "/tmp/"+name)
	}
	calls := d.playSystemd(t)
	d.run(t, debs...)
	for _, c := range calls() {
		if regexp.MustCompile(`start|enable`).MatchString(c) {
			t.Errorf("the installation calls systemctl %s: its configuration is not complete yet", c)
		}
	}
	for _, p := range []string{"/usr/lib/cni/dcos-overlay", "/usr/lib/cni/dcos-ipam", "/usr/lib/cni/dcos-overlay-call", "/usr/bin/dcos-overlay-coordinator", "/usr/bin/dcos-overlay-companion", "/usr/bin/dcos-overlayctl"} {
		runs(t, root, p)
	}
	if got := d.run(t, "dpkg-query", "-W", "-f", "${Version} ${db:Status-Abbrev}|", "dcos-overlay*"); got != strings.Repeat(debVersion+" ii |", 3) {
		t.Errorf("dpkg says %q", got)
	}
	d.run(t, "dpkg", "--verify")
	d.run(t, "dcos-overlayctl", "validate", "/etc/dcos-overlay/agent.json", "/etc/dcos-overlay/network.json",
		"/usr/share/doc/dcos-overlay-agent/examples/dcos.cni")
	d.units(t)

	// The operator's words outlive an upgrade, and what runs is begun anew.
	own := filepath.Join(root, "etc/dcos-overlay/agent.json")
	if err := os.WriteFile(own, []byte(`{"master": ["http://172.17.0.2:64001"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	d.run(t, debs...)
	if got := read(t, own); !strings.Contains(got, "172.17.0.2") {
		t.Errorf("the upgrade has replaced the operator's agent.json: %s", got)
	}
	var starts []string
	for _, c := range calls() {
		if strings.Contains(c, "start") {
			starts = append(starts, c)
		}
	}
	if want := []string{"try-restart dcos-overlay-companion.service", "try-restart dcos-overlay-coordinator.service"}; !slices.Equal(starts, want) {
		t.Errorf("the upgrade calls systemctl %q, not %q", starts, want)
	}
	d.stopPlaying(t)

	// What the daemons leave has to go, too.
	d.run(t, "systemctl", "enable", "dcos-overlay-companion", "dcos-overlay-coordinator")
	if _, err := os.Lstat(filepath.Join(root, "etc/systemd/system/multi-user.target.wants/dcos-overlay-companion.service")); err != nil {
		t.Error(err)
	}
	for _, path := range []string{
		"var/lib/dcos-overlay/lease.json", "run/dcos-overlay/networks/dcos/9.0.1.2",
		"var/lib/private/dcos-overlay-coordinator/member/snap/db",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("private/dcos-overlay-coordinator", filepath.Join(root, "var/lib/dcos-overlay-coordinator")); err != nil {
		t.Fatal(err)
	}
	d.run(t, append([]string{"rm"}, debs[2:]...)...)
	d.run(t, "dpkg", "-r", "dcos-overlay-agent", "dcos-overlay-coordinator", "dcos-overlayctl")
	for _, kept := range []string{"etc/dcos-overlay/agent.json", "var/lib/dcos-overlay/lease.json", "var/lib/private/dcos-overlay-coordinator/member/snap/db"} {
		if _, err := os.Stat(filepath.Join(root, kept)); err != nil {
			t.Errorf("the removal has not kept %s: %v", kept, err)
		}
	}
	d.run(t, "dpkg", "-P", "dcos-overlay-agent", "dcos-overlay-coordinator", "dcos-overlayctl")
	d.compare(t, before)
}

// debian is one in a directory.
type debian struct{ root string }

// run runs a program there, in namespaces that end with it and without a
// network.
func (d debian) run(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "", append([]string{
		"unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "chroot", d.root,
		"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive",
		"sh", "-ec", `mount -t proc proc /proc; exec "$@"`, "sh",
	}, args...)...)
}

// playSystemd has the packages' scripts find a systemd that runs, and a
// systemctl that writes down what it is asked and knows of no unit that is
// active. What it returns says what was asked since it was last called.
func (d debian) playSystemd(t *testing.T) (calls func() []string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(d.root, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho \"$*\" >>/tmp/calls\n[ \"$2\" != is-active ]\n"
	if err := os.WriteFile(filepath.Join(d.root, "usr/local/sbin/systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(d.root, "tmp/calls")
	return func() []string {
		out := strings.Split(strings.TrimSpace(read(t, log)), "\n")
		if !slices.Contains(out, "daemon-reload") {
			t.Errorf("systemd is not told of the new units: %q", out)
		}
		if err := os.Remove(log); err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func (d debian) stopPlaying(t *testing.T) {
	t.Helper()
	for _, path := range []string{"run/systemd/system", "usr/local/sbin/systemctl"} {
		if err := os.Remove(filepath.Join(d.root, path)); err != nil {
			t.Fatal(err)
		}
	}
}

// units has systemd judge the units: that they are right, and how much a
// service could do that somebody else has taken over. The bounds, in tenths of
// systemd's exposure, are what the services need: one is root in the network,
// the other has no right at all.
func (d debian) units(t *testing.T) {
	t.Helper()
	for unit, bound := range map[string]int{"dcos-overlay-companion.service": 39, "dcos-overlay-coordinator.service": 17} {
		// It only warns, in words, of what it does not know.
		if out := d.run(t, "sh", "-c", "systemd-analyze verify --man=no "+unit+" 2>&1"); out != "" {
			t.Errorf("systemd-analyze verify %s: %s", unit, out)
		}
		out := d.run(t, "systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+strconv.Itoa(bound), unit)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Log(lines[len(lines)-1])
	}
	// These are made by the installation.
	for _, dir := range []string{"var/lib/dcos-overlay", "run/dcos-overlay"} {
		if info, err := os.Stat(filepath.Join(d.root, dir)); err != nil || info.Mode() != fs.ModeDir|0o755 {
			t.Errorf("/%s is not made as tmpfiles.d says: %v", dir, err)
		}
	}
}

// files are all that there are, each with its type, mode and content.
func (d debian) files(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(d.root, path)
		if err != nil || bookkeeping(rel) {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		out[rel] = info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out[rel] += fmt.Sprintf(" %x", sha256.Sum256(data))
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			out[rel] += " " + target
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// bookkeeping tells whether dpkg, rpm or systemctl itself writes a file whatever
// is installed or enabled, and keeps it.
func bookkeeping(rel string) bool {
	return strings.HasPrefix(rel, "var/lib/rpm/") || slices.Contains([]string{
		"var/log/dpkg.log", "var/lib/dpkg/status", "var/lib/dpkg/status-old", "var/lib/dpkg/available", "var/lib/dpkg/available-old",
		"var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock", "var/lib/dpkg/triggers/Unincorp",
		"run/systemd/systemd-units-load",
	}, rel)
}

// compare fails t for each file that is not as it was.
func (d debian) compare(t *testing.T, before map[string]string) {
	t.Helper()
	if len(before) < 5000 {
		t.Errorf("a bare Debian has more than %d files", len(before))
	}
	after := d.files(t)
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if before[path] == "" {
			t.Errorf("the removal has left /%s", path)
		} else if before[path] != after[path] {
			t.Errorf("the removal has left /%s changed: %s, before %s", path, after[path], before[path])
		}
	}
	for path := range before {
		if after[path] == "" {
			t.Errorf("the removal has taken /%s away", path)
		}
	}
}
