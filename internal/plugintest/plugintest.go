// Package plugintest is an agent of its own for a test that runs a CNI plugin
// on whatever comes, in the test's process: its files, its namespaces, and what
// every answer of the plugin must be. It takes root.
package plugintest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/mountns"
)

// Lease is an agent's on the overlay dual, which has both families:
// 10.64.0.0/24 and fd01:d::/80, the lower halves of which are the plugins'.
const Lease = `{"agent":{"id":"a","ip":"172.17.0.4","vtep":{"ip":"44.128.0.1/20","ip6":"fd01:a::1/64","mac":"70:b3:d5:80:00:01"},` +
	`"network_config":{},"overlays":[{"name":"dual","subnets":["10.64.0.0/24"],"subnets6":["fd01:d::/80"],"state":{"status":"STATUS_OK"}}]},` +
	`"network":{"vtep_subnet":"44.128.0.0/20","vtep_subnet6":"fd01:a::/64","vtep_mac_oui":"70:B3:D5:00:00:00","overlays":[{"name":"dual","subnet":"10.64.0.0/16","prefix":24,"subnet6":"fd01:d::/64","prefix6":80}]},"revision":7}`

// Agent is what there is of one agent.
type Agent struct {
	// Stdin is the configuration that was given, with the agent's file in it
	// if it is an object.
	Stdin []byte
	// Nowhere is a path with nothing at it, for a namespace that is gone, and
	// Path a CNI_PATH without plugins.
	Nowhere, Path string
	// store is where the agent's reservations are.
	store string
}

// New makes an agent with a lease, and puts the test's goroutine into fresh
// namespaces for network and mounts, where the default directories are empty:
// an ADD notes there where its store is, and a configuration may leave the
// agent's file to the default. They end with the thread, and that with the
// goroutine. No coordinator answers.
func New(t *testing.T, conf, lease []byte) *Agent {
	t.Helper()
	dir := t.TempDir()
	alone(t, dir)
	file := filepath.Join(dir, "agent.json")
	run, state := filepath.Join(dir, "run"), filepath.Join(dir, "state")
	// Nobody listens on port 1 of a new namespace.
	text, err := json.Marshal(map[string]any{"master": "http://127.0.0.1:1", "ip": "172.17.0.4", "state_dir": state, "run_dir": run})
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err == nil {
		err = os.Mkdir(state, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(state, "lease.json"), lease, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Agent{Stdin: naming(t, conf, file), Nowhere: filepath.Join(dir, "nowhere"), Path: dir, store: filepath.Join(run, "networks")}
}

// naming is a configuration that names the agent's file, as far as it can.
func naming(t *testing.T, conf []byte, file string) []byte {
	t.Helper()
	var fields map[string]any
	if json.Unmarshal(conf, &fields) != nil || fields == nil {
		return conf
	}
	fields["agentConfig"] = file
	if section, ok := fields["ipam"].(map[string]any); ok {
		delete(section, "agentConfig")
	}
	out, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// alone makes the namespaces.
func alone(t *testing.T, dir string) {
	t.Helper()
	runtime.LockOSThread()
	if _, err := netns.New(); err != nil {
		t.Fatalf("make a network namespace (it takes root): %v", err)
	}
	if err := mountns.Own(); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{filepath.Dir(agentconf.DefaultRunDir), filepath.Dir(agentconf.DefaultStateDir)} {
		if strings.HasPrefix(dir, place) {
			t.Fatalf("%s is below %s, which is hidden", dir, place)
		}
		if err := unix.Mount("empty", place, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatalf("hide %s: %v", place, err)
		}
	}
}

// Answer fails the test unless err is nil or an error for a runtime: with a
// code, and on one line.
func Answer(t *testing.T, err error) {
	t.Helper()
	var coded *types.Error
	if err != nil && (!errors.As(err, &coded) || coded.Code == 0 || coded.Msg == "" || strings.Contains(coded.Msg, "\n")) {
		t.Errorf("not an error for a runtime: %q", err)
	}
}

// Left fails the test if an address is reserved.
func (a *Agent) Left(t *testing.T) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(a.store, "*", "[0-9a-f]*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
