package integration

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// TestIsolationWithoutCompanion: a host without companion hears that an overlay
// was isolated or opened by the next ADD that asks a coordinator: for a fixed
// address, or for a further subnet.
func TestIsolationWithoutCompanion(t *testing.T) {
	t.Parallel()
	s := newCNIScene(t)
	ctx := t.Context()
	const red = `{"subnet": "10.20.0.0/16", "prefix": 24, "isolated": %v}`
	// Half of an agent's first subnet has one address for containers.
	putOverlay(t, s, "blue", `{"subnet": "10.30.0.0/16", "prefix": 29, "static_subnet": "10.30.255.0/24"}`)
	putOverlay(t, s, "red", fmt.Sprintf(red, false))
	start := func(overlay, id string, fixed ...netip.Addr) *lab.Container {
		t.Helper()
		task := fixedTask(id, nil, fixed...)
		task.Conf = scene.CNI(overlay)
		return must[*lab.Container](t)(s.A.MesosContainer(ctx, task))
	}
	isolate := func(isolated bool) {
		t.Helper()
		url := s.Master.CoordinatorURL() + "/v1/overlays/red"
		code, answer, err := s.Master.HTTP(ctx, http.MethodPut, url, fmt.Appendf(nil, red, isolated))
		if err != nil || code != http.StatusOK {
			t.Fatalf("switch red: %d %s, %v", code, answer, err)
		}
	}
	to, from := start("red", "red"), start("blue", "blue")
	must[*lab.Process](t)(to.Serve(ctx, scene.Port))
	reaches := func() error { _, err := from.Dial(ctx, serverOf(to)); return err }
	check(t, reaches())
	isolate(true)
	start("blue", "fixed", netip.MustParseAddr("10.30.255.9"))
	if reaches() == nil {
		t.Error("a container of another overlay reaches an isolated one after an ADD that asked the coordinator")
	}
	isolate(false)
	start("blue", "further")
	if n := len(heldOf(t, s, s.A, "blue").Subnets); n != 2 {
		t.Fatalf("the agent holds %d subnets of blue, not 2", n)
	}
	check(t, reaches())
}
