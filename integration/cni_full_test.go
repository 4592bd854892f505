package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// tinyDisk mounts an empty file system on a directory of a host, and returns
// what leaves it room for n more pages, or inodes, than it holds now.
func tinyDisk(t *testing.T, h *lab.Host, dir, kind string) (leave func(n int)) {
	t.Helper()
	run := func(script string, args ...string) {
		t.Helper()
		_, err := h.Run(t.Context(), append([]string{"sh", "-ec", script, dir}, args...)...)
		check(t, err)
	}
	// Pages and inodes enough for a test's containers.
	run(`mkdir -p "$0"; mount -t tmpfs -o size=400k,nr_inodes=100 tiny "$0"; mkdir "$0/fill"`)
	if kind == "pages" {
		return func(n int) {
			run(`rm -f "$0"/fill/*; cat /dev/zero >"$0/fill/0" 2>/dev/null || true; truncate -s -"$1" "$0/fill/0"`, fmt.Sprint(n*4096))
		}
	}
	return func(n int) {
		run(`rm -f "$0"/fill/*; i=0; while { true >"$0/fill/$i"; } 2>/dev/null; do i=$((i+1)); done
			while [ "$1" -gt 0 ]; do i=$((i-1)); set -- "$(($1-1))"; rm "$0/fill/$i"; done`, fmt.Sprint(n))
	}
}

// roomForADD is more than any ADD needs, in pages or inodes.
const roomForADD = 20

// room makes room on what tinyDisk made.
func room(t *testing.T, h *lab.Host, dir string) {
	t.Helper()
	_, err := h.Run(t.Context(), "sh", "-c", `rm -f "$0"/fill/*`, dir)
	check(t, err)
}

// TestFullStore: with less room than an ADD needs it fails, says what is full,
// and leaves nothing; with room it succeeds.
func TestFullStore(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	const dir = "/run/tiny"
	configure(t, s, h, map[string]any{"cni_data_dir": dir})
	check(t, must[*lab.Container](t)(h.MesosContainer(t.Context(), lab.MesosTask{ID: "first", Conf: scene.CNI("dual")})).Delete(t.Context()))
	netns := newNetns(t, h, "c")
	for _, kind := range []string{"pages", "inodes"} {
		for _, c := range []cniCall{
			{Verb: "ADD", ID: "c", Netns: netns, Conf: netConf("dual", "1.1.0")},
			{Verb: "ADD", ID: "c", Netns: netns, Conf: netConf("dual", "1.1.0"), Plugin: "dcos-ipam"},
			{Verb: "ADD", ID: "c", Netns: netns, Conf: ipamConf("dual", "1.1.0", map[string]any{"type": "host-local"})},
		} {
			what := fmt.Sprintf("%s, %s, %v", kind, c, c.Conf["ipam"])
			leave := tinyDisk(t, h, dir, kind)
			failed := 0
			for n := 0; ; n++ {
				leave(n)
				a := c.run(t, h)
				if a.failure == nil {
					break
				}
				if n == roomForADD {
					t.Fatalf("%s fails with room for %d: %s", what, n, a.failure.Msg)
				}
				failed++
				if !strings.Contains(a.failure.Msg, "no space left on device") || !strings.Contains(a.failure.Msg, dir) {
					t.Errorf("%s with room for %d: %d %s", what, n, a.failure.Code, a.failure.Msg)
				}
				if out := must[string](t)(h.Run(t.Context(), "sh", "-c", leftInStore, dir)); out != "" {
					t.Errorf("%s with room for %d has left:\n%s", what, n, out)
				}
				if left := nothingOf(t, h); left != "" {
					t.Errorf("%s with room for %d has left:\n%s", what, n, left)
				}
			}
			// Two reservations, two files that round-robin goes on from.
			if failed < 4 {
				t.Errorf("%s: it failed %d times only", what, failed)
			}
			// A DEL needs no room, and gives some back.
			leave(0)
			c.verb("DEL").ok(t, h)
			if out := must[string](t)(h.Run(t.Context(), "sh", "-c", leftInStore, dir)); out != "" {
				t.Errorf("%s: DEL has left:\n%s", what, out)
			}
			room(t, h, dir)
			c.ok(t, h)
			c.verb("DEL").ok(t, h)
			_, err := h.Run(t.Context(), "umount", dir)
			check(t, err)
		}
	}
}

// leftInStore lists what no container may leave in a store.
const leftInStore = `find "$0" -path "$0/fill" -prune -o -type f ! -name lock ! -name 'last_reserved_ip.*' -print`

// TestFullState: an agent that can't keep its id claims nothing, one that can't
// keep its lease starts no container, and both go on with room. What it has is
// not harmed.
func TestFullState(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	const dir = "/var/lib/dcos-overlay"
	c := cniCall{Verb: "ADD", ID: "c", Netns: newNetns(t, h, "c"), Conf: netConf("dual", "1.1.0")}
	leave := tinyDisk(t, h, dir, "pages")
	fails := func(n int, c cniCall, file string) {
		t.Helper()
		leave(n)
		c.fails(t, h, types.ErrIOFailure, "no space left on device", file, "make room")
		if left := nothingOf(t, h); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
		if out := must[string](t)(h.Run(t.Context(), "sh", "-c", `find "$0" -maxdepth 1 -type f -empty; find "$0" -maxdepth 1 -name '.*[0-9]*'`, dir)); out != "" {
			t.Errorf("half-written:\n%s", out)
		}
	}
	fails(0, c, "agent-id")
	if n := must[int](t)(agentCount(t, s)); n != 0 {
		t.Errorf("%d agents have a lease", n)
	}
	fails(1, c, "lease.json")
	id := must[[]byte](t)(h.ReadFile(t.Context(), dir+"/agent-id"))
	room(t, h, dir)
	c.ok(t, h)
	was := heldOn(t, h, dir)
	if again := must[[]byte](t)(h.ReadFile(t.Context(), dir+"/agent-id")); string(again) != string(id) {
		t.Errorf("the id was %s and is %s", id, again)
	}
	if n := must[int](t)(agentCount(t, s)); n != 1 {
		t.Errorf("%d agents have a lease", n)
	}

	// Another overlay needs a new lease; that of the first stays, and serves.
	other := cniCall{Verb: "ADD", ID: "other", Netns: newNetns(t, h, "other"), Conf: netConf("alt", "1.1.0")}
	leave(0)
	other.fails(t, h, types.ErrIOFailure, "lease.json")
	if now := heldOn(t, h, dir); now != was {
		t.Errorf("the lease was\n%s\nand is\n%s", was, now)
	}
	second := c
	second.ID, second.Netns = "second", newNetns(t, h, "second")
	second.ok(t, h)
	second.verb("DEL").ok(t, h)
	c.verb("DEL").ok(t, h)

	// A boot leaves neither marks nor devices, and room for no answer of the
	// coordinator's; that grants what the lease on disk does.
	_, err := h.Run(t.Context(), "sh", "-ec", "rm -r /run/dcos-overlay; ip link del vtep1024; ip link del m-dual")
	check(t, err)
	second.ok(t, h)
	if now := heldOn(t, h, dir); now != was {
		t.Errorf("the lease was\n%s\nand is\n%s", was, now)
	}
	second.verb("DEL").ok(t, h)
	// It grants no more what the operator has taken back.
	_, err = s.Master.Run(t.Context(), "dcos-overlayctl", "agents", "delete", h.Addr.String(), "--force", "--yes")
	check(t, err)
	_, err = h.Run(t.Context(), "rm", "-r", "/run/dcos-overlay")
	check(t, err)
	second.fails(t, h, types.ErrIOFailure, "lease.json", "make room")
	room(t, h, dir)
	other.ok(t, h)
	other.verb("DEL").ok(t, h)
}

// heldOn is the lease on disk, which must be whole.
func heldOn(t *testing.T, h *lab.Host, dir string) string {
	t.Helper()
	data := must[[]byte](t)(h.ReadFile(t.Context(), dir+"/lease.json"))
	if !json.Valid(data) {
		t.Errorf("the lease is %s", data)
	}
	return string(data)
}

// TestFullRun: the marks and locks of this boot find no inode.
func TestFullRun(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	const dir = "/run/dcos-overlay"
	c := cniCall{Verb: "ADD", ID: "c", Netns: newNetns(t, h, "c"), Conf: netConf("dual", "1.1.0")}
	leave := tinyDisk(t, h, dir, "inodes")
	failed := 0
	for n := range roomForADD {
		// What the ADD before has made stays, for the host's good.
		leave(min(n, 1))
		a := c.run(t, h)
		if a.failure == nil {
			break
		}
		failed++
		if a.failure.Code != types.ErrIOFailure || !strings.Contains(a.failure.Msg, dir) {
			t.Errorf("ADD %d: %d %s", n, a.failure.Code, a.failure.Msg)
		}
		if left := nothingOf(t, h); left != "" {
			t.Errorf("ADD %d has left:\n%s", n, left)
		}
	}
	// The lock; the mark and the place of reservations, each with a folder.
	if failed != 5 {
		t.Errorf("it failed %d times, not 5", failed)
	}
	c.verb("DEL").ok(t, h)
}
