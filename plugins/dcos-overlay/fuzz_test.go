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
	"github.com/vishvananda/netns"
)

// FuzzVerbs runs every verb on whatever comes from a runtime, and from a lease
// on disk: none may panic, hang, or fail without an error of the
// specification. There is no coordinator, no container and no other plugin.
func FuzzVerbs(f *testing.F) {
	const lease = `{"agent":{"id":"a","ip":"172.17.0.4","vtep":{"ip":"44.128.0.1/20","ip6":"fd01:a::1/64","mac":"70:b3:d5:80:00:01"},` +
		`"network_config":{},"overlays":[{"name":"dual","subnets":["10.64.0.0/24"],"subnets6":["fd01:d::/80"],"state":{"status":"STATUS_OK"}}]},` +
		`"network":{"vtep_subnet":"44.128.0.0/20","vtep_subnet6":"fd01:a::/64","vtep_mac_oui":"70:B3:D5:00:00:00","overlays":[{"name":"dual","subnet":"10.64.0.0/16","prefix":24,"subnet6":"fd01:d::/64","prefix6":80}]},"revision":7}`
	const conf = `{"cniVersion":"1.1.0","name":"dual","ipam":{"type":"dcos-ipam"}}`
	for verb := range byte(5) {
		f.Add(verb, []byte(conf), []byte(lease), "c1", "eth0", "IP=10.64.0.5;MAC=02:00:00:00:00:01")
		f.Add(verb, []byte(conf), []byte(`{"agent":{"ip":"172.17.0.4"}}`), "c1", "eth0", "")
		f.Add(verb, []byte(`{"cniVersion":"1.1.0","name":"dual","ipam":{"type":"host-local"},"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]}`), []byte(lease), "c/1", "", "IP=")
		f.Add(verb, []byte(`{"cniVersion":"1.0.0","name":"dual","runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80}]},"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/ns","mac":"02:00:00:00:00:01"}],"ips":[{"interface":0,"address":"10.64.0.5/25","gateway":"10.64.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}}`), []byte(lease), "c1", "eth0", "K=V")
	}
	f.Add(byte(0), []byte(`{"name":7}`), []byte{}, "", "", ";=;")
	f.Fuzz(func(t *testing.T, verb byte, conf, lease []byte, id, ifName, args string) {
		// The thread, and its namespace, end with this goroutine.
		runtime.LockOSThread()
		if _, err := netns.New(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		stdin := inDir(t, conf, lease, dir)
		p := &plugin{log: slog.New(slog.NewTextHandler(io.Discard, nil)), out: io.Discard}
		verbs := []func(*skel.CmdArgs) error{p.add, p.del, p.check, p.gc, p.status}
		err := verbs[int(verb)%len(verbs)](&skel.CmdArgs{
			ContainerID: id, IfName: ifName, Args: args, StdinData: stdin,
			Netns: filepath.Join(dir, "nowhere"), Path: dir,
		})
		var coded *types.Error
		if err != nil && (!errors.As(err, &coded) || coded.Msg == "" || strings.Contains(coded.Msg, "\n")) {
			t.Errorf("not an error for a runtime: %q", err)
		}
		// ADD has failed for want of a namespace, and nobody else adds.
		if left, _ := filepath.Glob(filepath.Join(dir, "run", "networks", "*", "[0-9a-f]*")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
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
	fields["agentConfig"] = agent
	if section, ok := fields["ipam"].(map[string]any); ok {
		delete(section, "agentConfig")
	}
	out, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
