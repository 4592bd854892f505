package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/internal/netnstest"
)

// ownerEnv makes the test binary own a lab and wait to be killed; its value is
// the directory of the programs.
const ownerEnv = "DCOS_OVERLAY_LAB_OWNER"

// ownLab makes a lab with Docker in it, says so, and waits for ever.
func ownLab() {
	ctx := context.Background()
	err := func() error {
		l, err := lab.New(lab.Options{Bin: os.Getenv(ownerEnv)})
		if err != nil {
			return err
		}
		h, err := l.AddHost(ctx, "a", netip.MustParseAddr("172.17.0.2"))
		if err != nil {
			return err
		}
		if _, err := h.StartDocker(ctx); err != nil {
			return err
		}
		if _, err := h.DockerContainer(ctx, "held", "none"); err != nil {
			return err
		}
		if _, err := h.Start(ctx, "daemon", "sh", "-c", "setsid sleep 1000 & sleep 1000"); err != nil {
			return err
		}
		return nil
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("up")
	select {}
}

// linksTo are the links in /proc, one a process and kind, to namespaces out of
// a set.
func linksTo(t *testing.T, set map[string]bool) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range all {
		if space, err := os.Readlink(link); err == nil && set[space] {
			found = append(found, link)
		}
	}
	return found
}

// traces are directories and mounts of the labs of a process.
func traces(t *testing.T, pid int) []string {
	t.Helper()
	mark := labMark(pid)
	found, err := filepath.Glob(filepath.Join(os.TempDir(), mark+"*"))
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, mark) {
			found = append(found, line)
		}
	}
	return slices.DeleteFunc(found, func(path string) bool { return path == binDir })
}

// labMark begins the names of the labs of a process.
func labMark(pid int) string { return fmt.Sprintf("dcos-overlay-lab-%d-", pid) }

// TestKilledOwner kills -9 a process that owns a lab: its hosts end with it,
// and the next lab removes what is left on disk and of cgroups.
func TestKilledOwner(t *testing.T) {
	// For the owner this is the machine: nobody else makes links in it.
	netnstest.Enter(t)
	linksBefore := netnstest.Run(t, "ip -o link")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self)
	owner.Env = append(os.Environ(), ownerEnv+"="+binDir)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "up\n" {
		owner.Process.Kill()
		t.Fatalf("the owner of a lab says %q, %v", line, err)
	}
	// Its namespaces are those of processes below it.
	made := map[string]bool{}
	inCgroup := false
	for _, pid := range descendants(t, owner.Process.Pid) {
		for _, kind := range []string{"net", "mnt", "pid", "ipc", "uts"} {
			space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			if own, _ := os.Readlink("/proc/thread-self/ns/" + kind); err == nil && space != own {
				made[space] = true
			}
		}
		cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		inCgroup = inCgroup || err == nil && strings.Contains(string(cgroups), labMark(owner.Process.Pid))
	}
	// The outside host, host a, and Docker's container.
	if len(made) < 3*5 {
		t.Errorf("the lab has only the namespaces %v", made)
	}
	if len(traces(t, owner.Process.Pid)) != 1 || !inCgroup {
		t.Errorf("the lab has the directories %q; in a cgroup of its own: %v", traces(t, owner.Process.Pid), inCgroup)
	}

	// Looked for before, because the numbers of namespaces are used again.
	held := linksTo(t, made)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	owner.Wait()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := lab.Until(ctx, "the killed lab's processes to end", func(context.Context) error {
		for _, link := range held {
			if space, err := os.Readlink(link); err == nil && made[space] {
				return fmt.Errorf("%s is %s", link, space)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	l, _ := newLab(t, 0)
	// Seen from a host, for the machine may not have mounted its cgroups.
	if left, err := l.Outside.Run(ctx, "find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", labMark(owner.Process.Pid)+"*"); err != nil || left != "" {
		t.Errorf("a killed lab left the cgroups %s, %v", left, err)
	}
	if left := traces(t, owner.Process.Pid); len(left) > 0 {
		t.Errorf("a killed lab left %q", left)
	}
	if after := netnstest.Run(t, "ip -o link"); after != linksBefore {
		t.Errorf("the machine's links changed from\n%s to\n%s", linksBefore, after)
	}
}

// descendants are all processes below one.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	out, err := exec.Command("ps", "-e", "-o", "ppid=,pid=").Output()
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	for line := range strings.Lines(string(out)) {
		var parent, child int
		if _, err := fmt.Sscan(line, &parent, &child); err != nil {
			t.Fatal(err)
		}
		children[parent] = append(children[parent], child)
	}
	var all []int
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		all = append(all, children[todo[0]]...)
		todo = append(todo, children[todo[0]]...)
	}
	return all
}
