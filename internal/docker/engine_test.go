package docker

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// binDir has the programs that a lab runs.
var binDir string

func TestMain(m *testing.M) {
	dir, err := lab.TempDir()
	if err == nil {
		err = lab.BuildTools(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	binDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// engine is a real Docker Engine on a host of a lab of its own.
type engine struct {
	*Engine
	t       *testing.T
	client  *client.Client
	lab     *lab.Lab
	host    *lab.Host
	args    []string
	process *lab.Process
}

// hostAddr is the underlay address of the Engine's host.
var hostAddr = netip.MustParseAddr("172.17.0.2")

// startEngine starts an Engine with more arguments for dockerd.
func startEngine(t *testing.T, args ...string) *engine {
	t.Helper()
	l, err := lab.New(lab.Options{Bin: binDir})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	host, err := l.AddHost(t.Context(), "a", hostAddr)
	must(t, err)
	e := &engine{t: t, lab: l, host: host, args: args}
	// Docker's own path has /var/run, which is a symbolic link to /run: it
	// would lead out of the host.
	socket := fmt.Sprintf("unix:///proc/%d/root/run/docker.sock", host.PID())
	e.Engine, err = Open(socket)
	must(t, err)
	e.client, err = client.New(client.WithHost(socket))
	must(t, err)
	t.Cleanup(func() { e.client.Close() })
	e.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dockerd said:\n%s", e.process.Log())
		}
	})
	return e
}

// modern tells whether the Engine is one of those that newBridges is about.
func (e *engine) modern() bool {
	e.t.Helper()
	v, err := e.client.ServerVersion(e.t.Context(), client.ServerVersionOptions{})
	must(e.t, err)
	return versions.GreaterThanOrEqualTo(v.APIVersion, newBridges)
}

// nftables tells whether the Engine has its rules in nftables, as those from 29
// on can.
func (e *engine) nftables() bool {
	e.t.Helper()
	r, err := e.client.Info(e.t.Context(), client.InfoOptions{})
	must(e.t, err)
	return r.Info.FirewallBackend != nil && strings.HasPrefix(r.Info.FirewallBackend.Driver, "nftables")
}

// start starts the Engine and waits until it answers.
func (e *engine) start() {
	e.t.Helper()
	process, err := e.host.StartDocker(e.t.Context(), e.args...)
	must(e.t, err)
	e.process = process
}

// stop ends the Engine and waits until it is gone.
func (e *engine) stop() {
	e.t.Helper()
	must(e.t, e.process.Stop(e.t.Context()))
}

// eventually waits until done has no error.
func (e *engine) eventually(what string, done func() error) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	must(e.t, lab.Until(ctx, what, func(context.Context) error { return done() }))
}

// run starts a container on the network called name.
func (e *engine) run(containerName, name string, args ...string) *lab.Container {
	e.t.Helper()
	c, err := e.host.DockerContainer(e.t.Context(), containerName, name, args...)
	must(e.t, err)
	return c
}

// end removes containers.
func (e *engine) end(containers ...*lab.Container) {
	e.t.Helper()
	for _, c := range containers {
		must(e.t, c.Delete(e.t.Context()))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
