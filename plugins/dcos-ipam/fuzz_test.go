package main

import (
	"io"
	"log/slog"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/dcos/dcos-overlay/internal/plugintest"
)

// FuzzVerbs runs every verb on whatever comes from another main plugin, and
// from a lease on disk: none may panic, hang, or fail without an error of the
// specification. There is no coordinator and no container.
func FuzzVerbs(f *testing.F) {
	const conf = `{"cniVersion":"1.1.0","name":"dual","type":"bridge","ipam":{"type":"dcos-ipam"}}`
	for verb := range byte(5) {
		f.Add(verb, []byte(conf), []byte(plugintest.Lease), "c1", "eth0", "IP=10.64.0.5")
		f.Add(verb, []byte(conf), []byte(`{"agent":{"ip":"172.17.0.4"}}`), "c1", "eth0", "")
		f.Add(verb, []byte(`{"cniVersion":"1.1.0","name":"net","ipam":{"type":"dcos-ipam","overlay":"dual"},"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]}`), []byte(plugintest.Lease), "c-1", "e", "IP=")
		f.Add(verb, []byte(`{"cniVersion":"1.0.0","name":"dual","ipam":{"type":"dcos-ipam"},"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.64.0.5/25","gateway":"10.64.0.1"}]}}`), []byte(plugintest.Lease), "c1", "eth0", "K=V")
	}
	f.Add(byte(0), []byte(`{"name":7}`), []byte{}, "", "", ";=;")
	f.Fuzz(func(t *testing.T, verb byte, conf, lease []byte, id, ifName, args string) {
		if utils.ValidateContainerID(id) != nil || utils.ValidateInterfaceName(ifName) != nil {
			return // the library refuses them before
		}
		agent := plugintest.New(t, conf, lease)
		p := &plugin{log: slog.New(slog.NewTextHandler(io.Discard, nil)), out: io.Discard}
		call := &skel.CmdArgs{
			ContainerID: id, IfName: ifName, Args: args, StdinData: agent.Stdin, Netns: agent.Nowhere, Path: agent.Path,
		}
		verbs := []func(*skel.CmdArgs) error{p.add, p.del, p.check, p.gc, p.status}
		plugintest.Answer(t, verbs[int(verb)%len(verbs)](call))
		// What it has reserved a DEL frees, unless it says why not.
		err := p.del(call)
		plugintest.Answer(t, err)
		if err == nil {
			agent.Left(t)
		}
	})
}
