package integration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// remains are what of ours is on a host, Docker networks and files included.
func remains(t *testing.T, s *scene.Scene, h *lab.Host) string {
	t.Helper()
	var conf struct {
		CNIDir string `json:"cni_dir"`
	}
	check(t, json.Unmarshal(must[[]byte](t)(s.AgentJSON(nil)), &conf))
	out := must[string](t)(h.Run(t.Context(), "sh", "-c",
		`docker network ls -q -f label=dcos-overlay; ls "$0"/*.conf /run/dcos-overlay/ready/* 2>/dev/null; true`, conf.CNIDir))
	return traces(t, h) + out
}

// TestTeardown: all that is ours goes but what containers are on, and the
// lease only when that is asked for and nothing is left.
func TestTeardown(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))
	putForeign(t, s.A)
	before := foreign(t, s.A)
	c := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "c", Conf: scene.CNI("dcos")}))
	d := must[*lab.Container](t)(s.A.DockerContainer(ctx, "user", "dcos6"))
	teardown := func(flags ...string) lab.Result {
		t.Helper()
		return must[lab.Result](t)(s.A.Exec(ctx, lab.Command{Args: append([]string{"dcos-overlay-companion", "--teardown"}, flags...)}))
	}
	if r := teardown(); r.Code == 0 || !strings.Contains(r.Stderr, "another companion") {
		t.Errorf("while a companion runs it ends with %d: %s", r.Code, r.Stderr)
	}
	check(t, s.Companions["a"].Stop(ctx))

	r := teardown("--release")
	for _, want := range []string{
		"bridge m-dcos: delete bridge m-dcos: it is in use by 1 containers",
		"Docker network dcos6: Docker network dcos6 is in use by container user",
		"the lease is kept",
	} {
		if r.Code == 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("with containers it ends with %d, and says not %q: %s", r.Code, want, r.Stderr)
		}
	}
	left := remains(t, s, s.A)
	for _, gone := range []string{"vtep1024", "m-dcos6", "d-dcos\n", "DCOS-OVERLAY", ".conf", "ready"} {
		if strings.Contains(left, gone) {
			t.Errorf("%q is left:\n%s", gone, left)
		}
	}
	if !strings.Contains(left, "m-dcos\n") {
		t.Errorf("the bridge that a container is on is gone:\n%s", left)
	}

	check(t, c.Delete(ctx))
	check(t, d.Delete(ctx))
	if r := teardown(); r.Code != 0 {
		t.Errorf("without containers it ends with %d: %s", r.Code, r.Stderr)
	}
	if left := remains(t, s, s.A); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	if n := len(must[masterstate.State](t)(s.State(ctx)).Agents); n != 3 {
		t.Errorf("without --release the coordinator knows %d agents, want 3", n)
	}
	if after := foreign(t, s.A); after != before {
		t.Errorf("what is not ours has changed:\n%s", unlike(before, after))
	}
	for range 2 { // what is done is done
		if r := teardown("--release"); r.Code != 0 {
			t.Errorf("--release ends with %d: %s", r.Code, r.Stderr)
		}
	}
	if n := len(must[masterstate.State](t)(s.State(ctx)).Agents); n != 2 {
		t.Errorf("after --release the coordinator knows %d agents, want 2", n)
	}
	if exists := must[bool](t)(s.A.Exists(ctx, "/var/lib/dcos-overlay/lease.json")); exists {
		t.Error("the lease is still on disk")
	}
	// The host can come back.
	check(t, s.StartCompanion(ctx, s.A))
	check(t, s.AwaitPeers(ctx))
}
