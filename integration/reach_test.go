package integration

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/reach"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// TestWhoReachesWhom is the main job: the sample cluster comes up with the
// sample's state, and everybody reaches everybody by their own address.
func TestWhoReachesWhom(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))

	var want masterstate.State
	check(t, json.Unmarshal(scene.StateJSON, &want))
	got := must[masterstate.State](t)(s.State(ctx))
	for _, state := range []*masterstate.State{&want, &got} {
		slices.SortFunc(state.Agents, func(a, b masterstate.Agent) int { return cmp.Compare(a.IP.String(), b.IP.String()) })
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", "  ")
		t.Errorf("the state is not the sample's:\n%s", g)
	}

	crowd := must[[]scene.Member](t)(s.Crowd(ctx))
	check(t, s.ServeHosts(ctx))
	began := time.Now()
	rows := reach.Run(ctx, must[[]reach.Check](t)(s.Checks(ctx, crowd)))
	var table strings.Builder
	check(t, reach.Print(&table, rows, time.Since(began)))
	t.Log(table.String())
	if n := len(reach.Failed(rows)); n > 0 {
		t.Errorf("%d of %d connections are not as they should be", n, len(rows))
	}
	for _, m := range crowd {
		check(t, m.Delete(ctx))
	}
}
