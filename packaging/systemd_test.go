package packaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/mountns"
	"github.com/dcos/dcos-overlay/internal/tempdir"
)

// patience is how long this waits for what a service does in the background.
const patience = 3 * time.Minute

// machinePrefix begins the names of a machine's directory and of its cgroups.
const machinePrefix = "dcos-overlay-machine-"

// groupTrees are the trees of cgroups that a machine has a part of.
var groupTrees = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}

// underSystemd installs the packages on a Debian whose systemd runs, starts the
// units with all that they forbid, and upgrades them under a container.
func underSystemd(t *testing.T, out string) {
	m := boot(t)
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "underlay", "type", "bridge"}, // stands for the network card
		{"addr", "add", "172.17.0.2/16", "dev", "underlay"},
		{"link", "set", "underlay", "addrgenmode", "none"},
		{"link", "set", "underlay", "up"},
		{"route", "add", "default", "via", "172.17.0.1"},
	} {
		m.ip(t, args...)
	}
	debs := []string{"dpkg", "-i"}
	for _, p := range []string{"dcos-overlay-agent", "dcos-overlay-coordinator", "dcos-overlayctl"} {
		name := p + "_" + debVersion + "_" + runtime.GOARCH + ".deb"
		command(t, "", "cp", filepath.Join(out, name), filepath.Join(m.root, "root"))
		debs = append(debs, "/root/"+name)
	}
	m.run(t, "", debs...)
	units := []string{"dcos-overlay-coordinator.service", "dcos-overlay-companion.service"}
	for _, u := range units {
		if got := m.show(t, u, "ActiveState", "UnitFileState"); !slices.Equal(got, []string{"inactive", "disabled"}) {
			t.Errorf("after the installation %s is %q", u, got)
		}
	}

	conf := `{"master": "127.0.0.1", "network_config": {"docker_bridge": false}}`
	if err := os.WriteFile(filepath.Join(m.root, "etc/dcos-overlay/agent.json"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	m.run(t, "", append([]string{"systemctl", "enable", "--now"}, units...)...)
	m.until(t, "dcos-overlayctl", "status")
	m.run(t, "", "sh", "-ec", "touch /root/container; unshare --net=/root/container true")
	t.Cleanup(func() { m.run(t, "", "umount", "/root/container") })
	m.run(t, `{"cniVersion": "1.0.0", "name": "dcos", "type": "dcos-overlay", "ipam": {"type": "dcos-ipam"}}`,
		"env", "CNI_COMMAND=ADD", "CNI_CONTAINERID=one", "CNI_NETNS=/root/container", "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni", "/usr/lib/cni/dcos-overlay")
	// The companion has found nothing wrong since, with the rights that it has.
	m.until(t, "sh", "-c", "dcos-overlayctl agents 172.17.0.2 | grep STATUS_OK")
	if log := m.run(t, "", "journalctl", "-q", "-u", "dcos-overlay-companion", "-p", "err", "-g", "permit|permission", "--no-pager", "-n", "5"); log != "" {
		t.Errorf("the companion lacks a right:\n%s", log)
	}

	before := map[string]string{}
	for _, u := range units {
		before[u] = m.show(t, u, "MainPID")[0]
	}
	changes := m.monitor(t)
	m.run(t, "", debs...)
	for _, u := range units {
		got := m.show(t, u, "ActiveState", "NRestarts", "MainPID")
		if !slices.Equal(got[:2], []string{"active", "0"}) || got[2] == before[u] {
			t.Errorf("after the upgrade %s is %q; its process was %s", u, got, before[u])
		}
	}
	m.until(t, "dcos-overlayctl", "status")
	if seen := changes(); seen != "" {
		t.Errorf("the upgrade has touched what containers use:\n%s", seen)
	}
	m.run(t, "", "dpkg", "-P", "dcos-overlay-agent", "dcos-overlay-coordinator", "dcos-overlayctl")
	for _, u := range units {
		if got := m.show(t, u, "ActiveState", "LoadState"); !slices.Equal(got, []string{"inactive", "not-found"}) {
			t.Errorf("after the purge %s is %q", u, got)
		}
	}
}

// machine is a Debian that was booted in namespaces.
type machine struct {
	root string
	// pid is its process 1, as the test sees it.
	pid string
}

func boot(t *testing.T) machine {
	t.Helper()
	ownMounts(t)
	removeKilled(t)
	root, err := tempdir.Make(machinePrefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	m := machine{root: root}
	base := strings.TrimSpace(command(t, "", "../scripts/bare-debian.sh"))
	command(t, "", "tar", "-C", m.root, "-xpf", base)
	group := filepath.Base(root)
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command("testdata/boot.sh", m.root, group)
	cmd.Stdout, cmd.Stderr = said, said
	// The thread is this test's, since it has mounts of its own.
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// With unshare its child ends, and with process 1 all others.
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		removeGroups(t, group)
	})
	children := fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid)
	wait(t, "a process 1", func() error {
		data, err := os.ReadFile(children)
		if err != nil {
			return err
		}
		m.pid = strings.TrimSpace(string(data))
		name, err := os.ReadFile("/proc/" + m.pid + "/comm")
		if err == nil && string(name) != "systemd\n" {
			err = fmt.Errorf("it is still %q; booting has said %q", name, read(t, said.Name()))
		}
		return err
	})
	wait(t, "systemd", func() error {
		state, err := m.command(t.Context(), "systemctl", "is-system-running").CombinedOutput()
		if s := strings.TrimSpace(string(state)); s != "running" {
			return fmt.Errorf("it is %q (%w); booting has said %q", s, err, read(t, said.Name()))
		}
		return nil
	})
	return m
}

// ownMounts gives the test mounts that nobody else sees, and the cgroups if the
// machine has not mounted them. They end with the test's goroutine, and what
// that starts has them, too.
func ownMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := mountns.Own(); err != nil {
		t.Fatal(err)
	}
	const at = "/sys/fs/cgroup"
	if there, err := os.ReadDir(at); err != nil || len(there) > 0 {
		return
	}
	list, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		err = mountns.Cgroups(at, string(list))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// removeKilled removes the directories and the cgroups of machines whose test
// was killed; their processes ended with it.
func removeKilled(t *testing.T) {
	t.Helper()
	dirs, err := tempdir.AllStale(machinePrefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	for _, tree := range groupTrees {
		groups, err := filepath.Glob(filepath.Join(tree, machinePrefix+"*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			if name := filepath.Base(g); tempdir.Stale(machinePrefix, name) {
				removeGroups(t, name)
			}
		}
	}
}

// removeGroups removes what processes that are gone have left of a cgroup.
func removeGroups(t *testing.T, group string) {
	for _, tree := range groupTrees {
		top := filepath.Join(tree, group)
		wait(t, top+" without processes", func() error {
			var dirs []string
			err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					dirs = append(dirs, path)
				}
				return err
			})
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			for _, d := range slices.Backward(dirs) {
				err = errors.Join(err, os.Remove(d))
			}
			return err
		})
	}
}

// wait asks until there is no error.
func wait(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %s: %v", what, patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (m machine) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{
		"-t", m.pid, "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd",
		"/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive",
	}, args...)...)
}

// run runs a program there that must succeed, and returns what it printed.
func (m machine) run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := m.command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	// Journalctl has found nothing.
	if args[0] == "journalctl" && len(out)+stderr.Len() == 0 {
		return ""
	}
	if err != nil {
		journal, _ := m.command(ctx, "journalctl", "-q", "--no-pager", "-n", "30").CombinedOutput()
		t.Fatalf("%q: %v\n%s%s\nthe journal:\n%s", args, err, out, &stderr, journal)
	}
	return string(out)
}

// until runs a program there until it succeeds.
func (m machine) until(t *testing.T, args ...string) {
	t.Helper()
	wait(t, strings.Join(args, " "), func() error {
		out, err := m.command(t.Context(), args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// show is what systemd knows of a unit.
func (m machine) show(t *testing.T, unit string, properties ...string) []string {
	t.Helper()
	var out []string
	for _, p := range properties {
		out = append(out, strings.TrimSpace(m.run(t, "", "systemctl", "show", "--value", "-p", p, unit)))
	}
	return out
}

// ip runs this machine's ip in the network of the other.
func (m machine) ip(t *testing.T, args ...string) {
	t.Helper()
	command(t, "", append([]string{"nsenter", "-t", m.pid, "--net", "ip"}, args...)...)
}

// monitor has the kernel tell of each link, address and route that changes,
// until what it returns is called.
func (m machine) monitor(t *testing.T) (changes func() string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("nsenter", "-t", m.pid, "--net", "ip", "-o", "monitor", "link", "address", "route")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It hears when it has a netlink socket.
	wait(t, "monitor", func() error {
		sockets, err := os.ReadFile("/proc/" + m.pid + "/net/netlink")
		if err == nil && !strings.Contains(string(sockets), " "+strconv.Itoa(cmd.Process.Pid)+" ") {
			err = errors.New("it does not listen yet")
		}
		return err
	})
	return func() string {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		var lines string
		for line := range strings.Lines(out.String()) {
			// The kernel makes link-local addresses in its own time.
			if !strings.Contains(line, "fe80::") && !strings.Contains(line, "ff00::") {
				lines += line
			}
		}
		return lines
	}
}
