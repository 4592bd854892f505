package integration

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// TestOverlayAtRuntime makes an overlay while all is up, uses it on both
// hosts, and deletes it: nothing of it stays on a host, and nothing else
// changes.
func TestOverlayAtRuntime(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))
	url := s.Master.CoordinatorURL() + "/v1/overlays/web"
	call := func(method, url, body string, want int) {
		t.Helper()
		code, answer, err := s.Master.HTTP(ctx, method, url, []byte(body))
		if err != nil || code != want {
			t.Fatalf("%s %s: %d %s, %v; want %d", method, url, code, answer, err, want)
		}
	}
	call(http.MethodPut, url, `{"subnet": "10.20.0.0/16", "prefix": 26}`, http.StatusCreated)
	a := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "a", Conf: scene.CNI("web")}))
	b := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "b", Conf: scene.CNI("web")}))
	must[*lab.Process](t)(a.Serve(ctx, scene.Port))
	within, cancel := context.WithTimeout(ctx, hang)
	defer cancel()
	check(t, lab.Until(within, "b to reach a", func(ctx context.Context) error {
		seen, err := b.Dial(ctx, serverOf(a))
		if err == nil && seen.Addr() != b.IP4 {
			err = fmt.Errorf("b is seen as %s", seen)
		}
		return err
	}))

	call(http.MethodDelete, url, "", http.StatusAccepted)
	call(http.MethodDelete, url+"?force=true", "", http.StatusNoContent)
	for _, c := range []*lab.Container{a, b} {
		check(t, c.Delete(ctx))
	}
	within, cancel = context.WithTimeout(ctx, hang)
	defer cancel()
	for _, h := range []*lab.Host{s.Master, s.A, s.B} {
		check(t, lab.Until(within, "host "+h.Name+" without the overlay", func(context.Context) error {
			if left := traces(t, h); strings.Contains(left, "web") || strings.Contains(left, "10.20.") {
				return fmt.Errorf("there is %s", left)
			}
			return nil
		}))
	}
	check(t, s.AwaitPeers(ctx))
}
