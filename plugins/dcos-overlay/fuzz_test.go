package main

import (
	"io"
	"log/slog"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/dcos/dcos-overlay/internal/plugintest"
)

// FuzzVerbs runs every verb on whatever comes from a runtime, and from a lease
// on disk: none may panic, hang, or fail without an error of the
// specification. There is no coordinator, no container and no other plugin.
func FuzzVerbs(f *testing.F) {
	const conf = `{"cniVersion":"1.1.0","name":"dual","ipam":{"type":"dcos-ipam"}}`
	for verb := range byte(5) {
		f.Add(verb, []byte(conf), []byte(plugintest.Lease), "c1", "eth0", "IP=10.64.0.5;MAC=02:00:00:00:00:01")
		f.Add(verb, []byte(conf), []byte(`{"agent":{"ip":"172.17.0.4"}}`), "c1", "eth0", "")
		f.Add(verb, []byte(`{"cniVersion":"1.1.0","name":"dual","ipam":{"type":"host-local"},"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]}`), []byte(plugintest.Lease), "c/1", "", "IP=")
		f.Add(verb, []byte(`{"cniVersion":"1.0.0","name":"dual","runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80}]},"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/ns","mac":"02:00:00:00:00:01"}],"ips":[{"interface":0,"address":"10.64.0.5/25","gateway":"10.64.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}}`), []byte(plugintest.Lease), "c1", "eth0", "K=V")
	}
	f.Add(byte(0), []byte(`{"name":7}`), []byte{}, "", "", ";=;")
	f.Fuzz(func(t *testing.T, verb byte, conf, lease []byte, id, ifName, args string) {
		agent := plugintest.New(t, conf, lease)
		p := &plugin{log: slog.New(slog.NewTextHandler(io.Discard, nil)), out: io.Discard}
		verbs := []func(*skel.CmdArgs) error{p.add, p.del, p.check, p.gc, p.status}
		plugintest.Answer(t, verbs[int(verb)%len(verbs)](&skel.CmdArgs{
			ContainerID: id, IfName: ifName, Args: args, StdinData: agent.Stdin, Netns: agent.Nowhere, Path: agent.Path,
		}))
		// ADD has failed for want of a namespace, and nobody else adds.
		agent.Left(t)
	})
}
