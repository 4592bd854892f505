package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// steps are the calls by which a plugin does something that others can see:
// files and locks, netlink and the coordinator, the container's namespace,
// other programs. What a killed one leaves is what is there between two.
var steps = []string{
	"mkdirat", "write", "fsync", "fchmodat", "utimensat", "renameat", "unlinkat", "symlinkat", "flock",
	"sendto", "setns", "clone", "execve", "waitid",
}

// strace is a command that runs a plugin's ADD with options of strace(1).
func (c cniCall) strace(t *testing.T, h *lab.Host, options ...string) lab.Result {
	t.Helper()
	dir := plugins(t)
	args := slices.Concat([]string{"strace", "-f", "-qq"}, options, []string{filepath.Join(dir, "dcos-overlay")})
	return must[lab.Result](t)(h.Exec(t.Context(), lab.Command{
		Args: args,
		// With one thread at a time strace's count, which is each thread's, is
		// nearly the program's.
		Env: []string{
			"CNI_COMMAND=" + c.Verb, "CNI_CONTAINERID=" + c.ID, "CNI_IFNAME=eth0", "CNI_NETNS=" + c.Netns, "CNI_PATH=" + dir,
			"GOMAXPROCS=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		},
		Stdin: must[[]byte](t)(json.Marshal(c.Conf)),
	}))
}

// TestKilledAnywhere kills -9 the ADD before each of its steps. A DEL leaves
// nothing then, and the next ADD does what the first should have done.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	for name, tt := range map[string]struct {
		conf map[string]any
		// before is done on the host before each ADD.
		before string
		// stride is from one point to the next; points is how many there are
		// at least, by a count with room for another kernel.
		stride, points int
	}{
		"warm":           {netConf("dual", "1.1.0"), "true", 1, 15},
		"with ports":     {cniCall{Conf: netConf("dual", "1.1.0")}.with(map[string]any{"runtimeConfig": runtimePorts(31000)}).Conf, "true", 10, 4},
		"host-local":     {ipamConf("dcos", "", map[string]any{"type": "host-local"}), "true", 1, 15},
		"cold, no lease": {netConf("alt", ""), "ip link del m-alt; ip link del vtep1024; rm -rf /run/dcos-overlay /run/dcos /var/lib/dcos-overlay; true", 3, 15},
	} {
		t.Run(name, func(t *testing.T) {
			netns := newNetns(t, h, "killed")
			defer func() {
				_, err := h.Run(ctx, "ip", "netns", "del", "killed")
				check(t, err)
			}()
			c := cniCall{Verb: "ADD", ID: "killed", Netns: netns, Conf: tt.conf}
			c.ok(t, h)
			c.verb("DEL").ok(t, h)
			points := 0
			for _, step := range steps {
				for n := 1; ; n += tt.stride {
					_, err := h.Run(ctx, "sh", "-c", tt.before)
					check(t, err)
					r := c.strace(t, h, "-o", "/dev/null", "-e", "trace="+step, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", step, n))
					c.verb("DEL").ok(t, h)
					if left := nothingOf(t, h); left != "" {
						t.Fatalf("killed before %s %d and DELed, it has left:\n%s", step, n, left)
					}
					if r.Code == 0 {
						break
					}
					if r.Code != 128+int(unix.SIGKILL) && r.Code != 1 {
						t.Fatalf("%s %d: the ADD ends with %d: %s%s", step, n, r.Code, r.Stdout, r.Stderr)
					}
					if r.Code > 1 {
						points++
					}
				}
			}
			t.Logf("killed at %d points", points)
			if points < tt.points {
				t.Errorf("the ADD was killed at %d points only: are the steps still these?", points)
			}
			resultOf(t, c.ok(t, h).stdout, strings.Trim(fmt.Sprint(tt.conf["cniVersion"]), "<nil>"))
			c.verb("DEL").ok(t, h)
		})
	}
}

// killedAt is an ADD that is killed -9 before its n-th step of those named; it
// tells whether it came so far.
func (c cniCall) killedAt(t *testing.T, h *lab.Host, steps string, n int) bool {
	t.Helper()
	r := c.strace(t, h, "-o", "/dev/null", "-e", "trace="+steps, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", steps, n))
	return r.Code != 0
}

// TestKilledAndNeverDeleted: when no DEL comes, the companion frees all once
// the containers are gone.
func TestKilledAndNeverDeleted(t *testing.T) {
	t.Parallel()
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	c := cniCall{Verb: "ADD", Conf: netConf("dual", "1.1.0")}.with(map[string]any{"runtimeConfig": runtimePorts(31000)})
	made := 0
	another := func() cniCall {
		c, id := c, fmt.Sprint("killed-", made)
		made++
		c.ID, c.Netns = id, newNetns(t, h, id)
		return c
	}
	first := another()
	first.ok(t, h)
	first.verb("DEL").ok(t, h)
	points := 0
	// Every point is TestKilledAnywhere's to try: here some of before, between
	// and after reservation, link and ports. The last ADD of each gets through.
	for _, step := range []string{"renameat", "sendto", "execve"} {
		for n := 1; another().killedAt(t, h, step, n) && points < 50; n += 3 {
			points++
		}
	}
	t.Logf("killed at %d points", points)
	if left := nothingOf(t, h); points < 4 || points == 50 || left == "" {
		t.Errorf("%d killed ADDs have left %q: are the steps still these?", points, left)
	}
	_, err := h.Run(ctx, "sh", "-ec", `ip netns list | cut -d" " -f1 | xargs -n 1 ip netns del`)
	check(t, err)
	conf := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}}))
	companion := must[*lab.Process](t)(h.StartCompanion(ctx, conf, "--interval", "1s", "--leak-grace", "1s"))
	err = lab.Until(ctx, "the companion to free all", func(context.Context) error {
		if left := nothingOf(t, h); left != "" {
			return errors.New(left)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%v; the companion's log:\n%s", err, companion.Log())
	}
	// Nobody holds a lock.
	again := another()
	again.ok(t, h)
	again.verb("DEL").ok(t, h)
}

// TestKilledAndCollected: a GC frees at once what killed ADDs have left.
func TestKilledAndCollected(t *testing.T) {
	t.Parallel()
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	c := cniCall{Verb: "ADD", ID: "killed", Netns: newNetns(t, h, "killed"), Conf: netConf("dual", "1.1.0")}.with(map[string]any{"runtimeConfig": runtimePorts(31000)})
	c.ok(t, h)
	c.verb("DEL").ok(t, h)
	gc := cniCall{Verb: "GC", Conf: netConf("dual", "1.1.0")}.with(map[string]any{"cni.dev/attachments": []any{}})
	for n := 1; ; n++ {
		killed := c.killedAt(t, h, "sendto,execve", n)
		gc.ok(t, h)
		if left := nothingOf(t, h); left != "" {
			t.Fatalf("killed at %d, GC has left:\n%s", n, left)
		}
		if !killed {
			break
		}
	}
	_, err := h.Run(ctx, "ip", "netns", "del", "killed")
	check(t, err)
}

// TestWarmADDRunsNothing: with the lease there and the host set up, an ADD
// runs no program, and opens no connection.
func TestWarmADDRunsNothing(t *testing.T) {
	s := newCNIScene(t)
	ctx := t.Context()
	h := s.A
	first := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "first", Conf: scene.CNI("dual")}))
	c := cniCall{Verb: "ADD", ID: "warm", Netns: newNetns(t, h, "warm"), Conf: netConf("dual", "")}
	r := c.strace(t, h, "-o", "/tmp/trace", "-e", "trace=execve,execveat,connect,socket")
	if r.Code != 0 {
		t.Fatalf("ADD ends with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	trace := string(must[[]byte](t)(h.ReadFile(ctx, "/tmp/trace")))
	if n := strings.Count(trace, "execve"); n != 1 {
		t.Errorf("there are %d programs, not the plugin alone:\n%s", n, trace)
	}
	for _, call := range strings.Split(trace, "\n") {
		if strings.Contains(call, "connect(") || strings.Contains(call, "AF_INET") {
			t.Errorf("it has a connection: %s", call)
		}
	}
	if !strings.Contains(trace, "AF_NETLINK") {
		t.Errorf("this test sees no sockets:\n%s", trace)
	}
	c.verb("DEL").ok(t, h)
	check(t, first.Delete(ctx))
}
