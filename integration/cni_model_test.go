package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
)

const (
	// modelRounds is how many rounds TestAgainstModel plays if roundsEnv does
	// not say otherwise: under a minute, at 4 or 5 rounds of 31 programs a
	// second on two cores, nearly all of it the start of programs and the
	// kernel's making and removing of links.
	modelRounds = 150
	roundsEnv   = "DCOS_OVERLAY_MODEL_ROUNDS"
	// modelParallel is how many calls a round has at once, and modelSlots how
	// many containers there are to choose from.
	modelParallel, modelSlots = 30, 50
)

// slot is one container of the model.
type slot struct {
	call cniCall
	// addrs are what it has; empty when it is not attached.
	addrs []string
	prev  any
}

// TestAgainstModel plays rounds of parallel ADD, DEL, CHECK and GC on one
// host: no address is given twice, and none is lost.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	rounds := modelRounds
	if text := os.Getenv(roundsEnv); text != "" {
		rounds = must[int](t)(strconv.Atoi(text))
	}
	s := newCNIScene(t)
	h := s.A
	seed := rand.Uint64()
	t.Logf("%d rounds, seed %d", rounds, seed)
	r := rand.New(rand.NewPCG(seed, 0))
	slots := make([]*slot, modelSlots)
	for i := range slots {
		id := fmt.Sprintf("c%d", i)
		// A fifth of them on an overlay with 5 addresses, for more containers.
		overlay := "dual"
		if i%5 == 0 {
			overlay = "tiny"
		}
		slots[i] = &slot{call: cniCall{ID: id, Netns: newNetns(t, h, id), Conf: netConf(overlay, "1.1.0")}}
	}
	for round := range rounds {
		r.Shuffle(len(slots), func(i, j int) { slots[i], slots[j] = slots[j], slots[i] })
		playRound(t, h, r, slots)
		var want []string
		for _, s := range slots {
			want = append(want, s.addrs...)
		}
		slices.Sort(want)
		if got := reservedOn(t, h); !slices.Equal(got, want) {
			t.Fatalf("after round %d there are reserved\n%q, and the containers have\n%q", round, got, want)
		}
	}
	for _, s := range slots {
		s.call.verb("DEL").ok(t, h)
	}
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// playRound does one thing to each of the first slots, all at once, and beside
// it a GC that drops some of the others.
func playRound(t *testing.T, h *lab.Host, r *rand.Rand, slots []*slot) {
	t.Helper()
	busy, idle := slots[:modelParallel], slots[modelParallel:]
	dropped := map[*slot]bool{}
	for _, s := range idle {
		if s.call.Conf["name"] == "dual" && r.IntN(4) == 0 {
			dropped[s] = true
		}
	}
	var valid []any
	for _, s := range slots {
		if !dropped[s] {
			valid = append(valid, map[string]any{"containerID": s.call.ID, "ifname": "eth0"})
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		cniCall{Verb: "GC", Conf: netConf("dual", "1.1.0")}.with(map[string]any{"cni.dev/valid-attachments": valid}).mustSucceed(t, h)
	})
	for _, s := range busy {
		choice := r.IntN(4)
		wg.Go(func() { s.play(t, h, choice) })
	}
	wg.Wait()
	for s := range maps.Keys(dropped) {
		s.addrs = nil
	}
}

// mustSucceed is ok for goroutines, which can't end the test.
func (c cniCall) mustSucceed(t *testing.T, h *lab.Host) answer {
	t.Helper()
	a := c.run(t, h)
	if a.failure != nil {
		t.Errorf("%s: %d %s", c, a.failure.Code, a.failure.Msg)
	}
	return a
}

// play does one thing, and wants of it what the model says.
func (s *slot) play(t *testing.T, h *lab.Host, choice int) {
	switch {
	case choice == 0: // DEL, attached or not
		s.call.verb("DEL").mustSucceed(t, h)
		s.addrs = nil
	case len(s.addrs) > 0 && choice == 1: // a second ADD
		if a := s.call.verb("ADD").run(t, h); a.failure == nil || a.failure.Code != 103 {
			t.Errorf("a second ADD of %s: %+v %s", s.call.ID, a.failure, a.stdout)
		}
	case len(s.addrs) > 0:
		s.call.verb("CHECK").with(map[string]any{"prevResult": s.prev}).mustSucceed(t, h)
	default:
		a := s.call.verb("ADD").run(t, h)
		if a.failure != nil {
			if s.call.Conf["name"] != "tiny" || a.failure.Code != 100 || !strings.Contains(a.failure.Msg, "10.66.0.0/29") {
				t.Errorf("ADD of %s: %+v", s.call.ID, a.failure)
			}
			return
		}
		var result struct{ IPs []struct{ Address string } }
		if err := json.Unmarshal(a.stdout, &result); err != nil {
			t.Errorf("ADD of %s: %v: %s", s.call.ID, err, a.stdout)
		}
		if err := json.Unmarshal(a.stdout, &s.prev); err != nil {
			t.Error(err)
		}
		for _, ip := range result.IPs {
			addr, _, _ := strings.Cut(ip.Address, "/")
			s.addrs = append(s.addrs, addr)
		}
	}
}
