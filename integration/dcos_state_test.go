package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// The tests in the files dcos_*_test.go play what DC/OS's own suites and
// manuals say of its overlay, against /overlay-master/state and
// /overlay-agent/overlay, whose fields DC/OS defines.

// object is JSON as it came, so that absent and null differ.
type object = map[string]any

// get reads JSON from a host.
func get(t *testing.T, h *lab.Host, url string) object {
	t.Helper()
	code, body, err := h.HTTP(t.Context(), http.MethodGet, url, nil)
	if err != nil || code != http.StatusOK {
		t.Fatalf("%s: GET %s: %d %s, %v", h.Name, url, code, body, err)
	}
	var out object
	check(t, json.Unmarshal(body, &out))
	return out
}

func masterState(t *testing.T, s *scene.Scene) object {
	t.Helper()
	return get(t, s.Master, s.Master.CoordinatorURL()+"/overlay-master/state")
}

// agentEntry is what a host's companion says of itself.
func agentEntry(t *testing.T, h *lab.Host) object {
	t.Helper()
	return get(t, h, "http://127.0.0.1:64002/overlay-agent/overlay")
}

// entryOf is a host's entry in the state; nil without one.
func entryOf(state object, h *lab.Host) object {
	agents, _ := state["agents"].([]any)
	for _, a := range agents {
		if entry := a.(object); entry["ip"] == h.Addr.String() {
			return entry
		}
	}
	return nil
}

// overlayOf is one overlay of an entry; nil without it.
func overlayOf(entry object, name string) object {
	overlays, _ := entry["overlays"].([]any)
	for _, o := range overlays {
		if overlay := o.(object); overlay["info"].(object)["name"] == name {
			return overlay
		}
	}
	return nil
}

func indent(v any) string {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// wantStates waits until hosts have exactly these overlays, all of them right,
// and the coordinator and each host's companion say the same of them, field
// for field. It answers with the state.
func wantStates(t *testing.T, s *scene.Scene, overlays []string, hosts ...*lab.Host) (state object) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, fmt.Sprintf("overlays %q on all hosts", overlays), func(context.Context) error {
		state = masterState(t, s)
		for _, h := range hosts {
			entry := entryOf(state, h)
			if entry == nil {
				return fmt.Errorf("host %s is not in the state", h.Name)
			}
			var names []string
			for _, o := range entry["overlays"].([]any) {
				o := o.(object)
				if status := o["state"].(object); !reflect.DeepEqual(status, object{"status": "STATUS_OK"}) {
					return fmt.Errorf("host %s: %s", h.Name, indent(o))
				}
				names = append(names, o["info"].(object)["name"].(string))
			}
			if !slices.Equal(names, overlays) {
				return fmt.Errorf("host %s has overlays %q", h.Name, names)
			}
			if own := agentEntry(t, h); !reflect.DeepEqual(own, entry) {
				return fmt.Errorf("host %s says of itself %s, and the coordinator says %s", h.Name, indent(own), indent(entry))
			}
		}
		return nil
	}))
	return state
}

// same wants two parts of states to be equal, field for field.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n%s", what, unlike(indent(want), indent(got)))
	}
}

// restart stops a host's companion, and starts it with changes of the sample's
// file.
func restart(t *testing.T, s *scene.Scene, h *lab.Host, changes object) {
	t.Helper()
	check(t, s.Companions[h.Name].Stop(t.Context()))
	conf := must[[]byte](t)(s.AgentJSON(changes))
	s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(t.Context(), conf))
}

// untilHost waits until what a command prints on a host is right.
func untilHost(t *testing.T, h *lab.Host, what string, right func(out string) bool, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, what+" on host "+h.Name, func(ctx context.Context) error {
		out, err := h.Run(ctx, "sh", "-c", command)
		if err == nil && !right(out) {
			err = errors.New(out)
		}
		return err
	}))
}

func has(parts ...string) func(string) bool {
	return func(out string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(out, p) })
	}
}

func lacks(parts ...string) func(string) bool {
	return func(out string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(out, p) })
	}
}
