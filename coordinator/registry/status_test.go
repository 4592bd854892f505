package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

func report(overlay string, status lease.Status, text string, used int64) api.StatusRequest {
	return api.StatusRequest{Overlays: []api.OverlayStatus{{
		Name:      overlay,
		State:     lease.State{Status: status, Error: text},
		Addresses: api.Addresses{Mesos: &api.Usage{Used: used, Free: 125 - used}},
	}}}
}

func TestStatus(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(1, "a", "dcos", "dcos6")
	status := func(req api.StatusRequest) int64 {
		t.Helper()
		if err := w.Status(t.Context(), ip(1), req); err != nil {
			t.Fatal(err)
		}
		return w.Counts().Revision
	}
	state := func() string {
		t.Helper()
		a, err := w.Agent(t.Context(), ip(1))
		if err != nil {
			t.Fatal(err)
		}
		return string(a.Overlays[0].State.Status) + " " + a.Overlays[0].State.Error
	}
	first := status(report("dcos", lease.StatusOK, "", 1))
	check(t, "state", state(), "STATUS_OK ")
	if !w.Alive(ip(1)) || w.Alive(ip(2)) {
		t.Errorf("alive: %v, %v", w.Alive(ip(1)), w.Alive(ip(2)))
	}
	check(t, "revision after the same again", status(report("dcos", lease.StatusOK, "", 1)), first)
	second := status(report("dcos", lease.StatusOK, "", 2))
	if second == first {
		t.Error("the use of addresses is not written when it changes")
	}
	a, _ := w.Agent(t.Context(), ip(1))
	status(report("dcos", lease.StatusOK, "", 3))
	if b, _ := w.Agent(t.Context(), ip(1)); b != a {
		t.Error("the record is written when only the use of addresses changes")
	}
	status(report("dcos", lease.StatusFailed, strings.Repeat("ü", 1000), 3))
	check(t, "state", state(), "STATUS_FAILED "+strings.Repeat("ü", 512))
	check(t, "a claim does not touch the state", w.claim(1, "a", "dcos").Overlays[0].State.Status, lease.StatusFailed)
	w.release(1)
	if w.Alive(ip(1)) {
		t.Error("a released agent is alive")
	}
}

func TestStatusRefused(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(1, "a", "dcos")
	wantCode(t, w.Status(t.Context(), ip(2), report("dcos", lease.StatusOK, "", 0)), api.CodeNotFound,
		"there is no agent 172.17.0.2: claim again")
	wantCode(t, w.Status(t.Context(), ip(1), api.StatusRequest{ID: "b"}), api.CodeNotFound,
		"agent 172.17.0.1 has another id than b: claim again")
	wantCode(t, w.Status(t.Context(), ip(1), report("dcos6", lease.StatusOK, "", 0)), api.CodeInvalid,
		`agent 172.17.0.1 reports on overlays that it holds nothing of: "dcos6"`)
	wantCode(t, w.Status(t.Context(), ip(1), report("dcos", "OK", "", 0)), api.CodeInvalid,
		`overlay dcos: "OK" is not a status: one of STATUS_OK, STATUS_FAILED, STATUS_CONFIGURING, STATUS_INVALID`)
	wantCode(t, w.Status(t.Context(), ip(1), report("dcos", lease.StatusOK, "", -1)), api.CodeInvalid,
		"overlay dcos: -1 used and 126 free addresses: neither can be negative")
}

// TestAliveEnds: an agent that is silent is not alive, and keeps its lease.
func TestAliveEnds(t *testing.T) {
	w := newWorld(t, sample, registry.Options{AliveTTL: time.Second})
	w.claim(1, "a", "dcos")
	if err := w.Status(t.Context(), ip(1), api.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	w.until("the agent counts as silent", func() bool { return !w.Alive(ip(1)) })
	check(t, "its lease", brief(w.claim(1, "a")), "172.17.0.1 44.128.0.1/20 fd01:a::1/64 dcos[9.0.0.0/24]")
	if err := w.Status(t.Context(), ip(1), api.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if !w.Alive(ip(1)) {
		t.Error("the agent has reported again, and is not alive")
	}
}
