package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/agentconf"
)

// FuzzVerbs runs every verb on whatever comes from another main plugin, and
// from a lease on disk: none may panic, hang, or fail without an error of the
// specification. There is no coordinator and no container.
func FuzzVerbs(f *testing.F) {
	const lease = `{"agent":{"id":"a","ip":"172.17.0.4","vtep":{"ip":"44.128.0.1/20","ip6":"fd01:a::1/64","mac":"70:b3:d5:80:00:01"},` +
		`"network_config":{},"overlays":[{"name":"dual","subnets":["10.64.0.0/24"],"subnets6":["fd01:d::/80"],"state":{"status":"STATUS_OK"}}]},` +
		`"network":{"vtep_subnet":"44.128.0.0/20","vtep_subnet6":"fd01:a::/64","vtep_mac_oui":"70:B3:D5:00:00:00","overlays":[{"name":"dual","subnet":"10.64.0.0/16","prefix":24,"subnet6":"fd01:d::/64","prefix6":80}]},"revision":7}`
	const conf = `{"cniVersion":"1.1.0","name":"dual","type":"bridge","ipam":{"type":"dcos-ipam"}}`
	for verb := range byte(5) {
		f.Add(verb, []byte(conf), []byte(lease), "c1", "eth0", "IP=10.64.0.5")
		f.Add(verb, []byte(conf), []byte(`{"agent":{"ip":"172.17.0.4"}}`), "c1", "eth0", "")
		f.Add(verb, []byte(`{"cniVersion":"1.1.0","name":"net","ipam":{"type":"dcos-ipam","overlay":"dual"},"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]}`), []byte(lease), "c-1", "e", "IP=")
		f.Add(verb, []byte(`{"cniVersion":"1.0.0","name":"dual","ipam":{"type":"dcos-ipam"},"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.64.0.5/25","gateway":"10.64.0.1"}]}}`), []byte(lease), "c1", "eth0", "K=V")
	}
	f.Add(byte(0), []byte(`{"name":7}`), []byte{}, "", "", ";=;")
	f.Fuzz(func(t *testing.T, verb byte, conf, lease []byte, id, ifName, args string) {
		if utils.ValidateContainerID(id) != nil || utils.ValidateInterfaceName(ifName) != nil {
			return // the library refuses them before
		}
		dir := t.TempDir()
		alone(t, dir)
		stdin := inDir(t, conf, lease, dir)
		p := &plugin{log: slog.New(slog.NewTextHandler(io.Discard, nil)), out: io.Discard}
		call := &skel.CmdArgs{
			ContainerID: id, IfName: ifName, Args: args, StdinData: stdin,
			Netns: filepath.Join(dir, "nowhere"), Path: dir,
		}
		verbs := []func(*skel.CmdArgs) error{p.add, p.del, p.check, p.gc, p.status}
		wellFormed(t, verbs[int(verb)%len(verbs)](call))
		// What it has reserved a DEL frees, unless it says why not.
		err := p.del(call)
		wellFormed(t, err)
		if left, _ := filepath.Glob(filepath.Join(dir, "run", "networks", "*", "[0-9a-f]*")); err == nil && len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

// wellFormed fails unless err is nil or an error for a runtime.
func wellFormed(t *testing.T, err error) {
	t.Helper()
	var coded *types.Error
	if err != nil && (!errors.As(err, &coded) || coded.Msg == "" || strings.Contains(coded.Msg, "\n")) {
		t.Errorf("not an error for a runtime: %q", err)
	}
}

// alone gives the test namespaces of its own for network and mounts, with the
// default directories empty in it: an ADD notes there where its store is, and
// a configuration may leave the agent's file to the default. They end with the
// thread, and that with the test's goroutine.
func alone(t *testing.T, dir string) {
	t.Helper()
	runtime.LockOSThread()
	if _, err := netns.New(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{filepath.Dir(agentconf.DefaultRunDir), filepath.Dir(agentconf.DefaultStateDir)} {
		if strings.HasPrefix(dir, place) {
			t.Fatalf("%s is below %s, which is hidden", dir, place)
		}
		if err := unix.Mount("empty", place, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
	}
}

// inDir makes an agent of its own in dir, and has the configuration name it.
func inDir(t *testing.T, conf, lease []byte, dir string) []byte {
	t.Helper()
	agent := filepath.Join(dir, "agent.json")
	text, err := json.Marshal(map[string]any{
		// Nobody listens on port 1 of a new namespace.
		"master": "http://127.0.0.1:1", "ip": "172.17.0.4",
		"state_dir": filepath.Join(dir, "state"), "run_dir": filepath.Join(dir, "run"),
	})
	if err == nil {
		err = os.WriteFile(agent, text, 0o600)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "state"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "state", "lease.json"), lease, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if json.Unmarshal(conf, &fields) != nil || fields == nil {
		return conf
	}
	section, ok := fields["ipam"].(map[string]any)
	if !ok {
		return conf
	}
	section["agentConfig"] = agent
	delete(fields, "agentConfig")
	out, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
