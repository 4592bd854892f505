package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/vishvananda/netns"
)

// engine is a real Docker Engine in network, mount and process namespaces of
// its own.
type engine struct {
	*Engine
	t       *testing.T
	client  *client.Client
	dir     string
	control io.WriteCloser
	cgroup  string
	unshare int // process id
}

// supervisor is process 1 of the Engine's namespaces, so that everything in
// them ends with it; and it ends when the test does, for its standard input
// closes. It starts and stops the Engine as it is told there.
const supervisor = `
set -e
mount -t tmpfs none /run
mkdir -p /run/lock
ip link set lo up
while read -r order; do
	case $order in
	start)
		rm -f "$DIR/docker.pid"
		dockerd --data-root "$DIR/data" --exec-root "$DIR/exec" --pidfile "$DIR/docker.pid" \
			-H "unix://$DIR/docker.sock" --storage-driver=vfs \
			--cgroup-parent="/$CGROUP" $FLAGS </dev/null >>"$DIR/log" 2>&1 &
		pid=$! ;;
	stop)
		kill "$pid"
		wait "$pid" || :
		echo stopped ;;
	esac
done
`

// startEngine starts an Engine with more flags for dockerd.
func startEngine(t *testing.T, flags string) *engine {
	t.Helper()
	// Not t.TempDir, whose path can be too long for a socket.
	dir, err := os.MkdirTemp("", "docker")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, dir: dir, cgroup: "dcos-overlay-" + filepath.Base(dir)}
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"--propagation", "private", "sh", "-c", supervisor)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin",
		"DIR="+dir, "CGROUP="+e.cgroup, "FLAGS="+flags)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if e.control, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("the test needs root and unshare: %v", err)
	}
	e.unshare = cmd.Process.Pid
	t.Cleanup(func() {
		// An Engine that stops by itself unmounts what it has mounted.
		e.stop()
		e.control.Close()
		io.Copy(io.Discard, stdout)
		cmd.Wait()
		if stderr.Len() > 0 {
			t.Errorf("the Engine's namespaces: %s", &stderr)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("dockerd said:\n%s", log)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + e.cgroup)
		for _, g := range append(groups, "/sys/fs/cgroup/"+e.cgroup) {
			if err := os.Remove(g); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
	})
	host := "unix://" + dir + "/docker.sock"
	if e.Engine, err = Open(host); err != nil {
		t.Fatal(err)
	}
	if e.client, err = client.New(client.WithHost(host)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.client.Close() })
	e.start()
	return e
}

func (e *engine) order(what string) { fmt.Fprintln(e.control, what) }

// start starts the Engine and waits until it answers.
func (e *engine) start() {
	e.t.Helper()
	e.order("start")
	e.eventually("the Engine answers", func() bool {
		_, err := e.client.Ping(context.Background(), client.PingOptions{NegotiateAPIVersion: true})
		return err == nil
	})
}

// stop ends the Engine and waits until its socket is dead.
func (e *engine) stop() {
	e.order("stop")
	e.eventually("the Engine is gone", func() bool {
		_, err := os.Stat(filepath.Join(e.dir, "docker.pid"))
		return os.IsNotExist(err)
	})
}

func (e *engine) eventually(what string, done func() bool) {
	e.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(e.dir, "log"))
			e.t.Fatalf("in vain waited until %s; dockerd said:\n%s", what, log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const image = "busybox-of-test"

// load makes an image of the machine's static busybox.
func (e *engine) load() {
	e.t.Helper()
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		e.t.Fatalf("the test needs the package busybox-static: %v", err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "busybox", Mode: 0o755, Size: int64(len(binary))}); err != nil {
		e.t.Fatal(err)
	}
	w.Write(binary)
	if err := w.Close(); err != nil {
		e.t.Fatal(err)
	}
	r, err := e.client.ImageImport(context.Background(), client.ImageImportSource{Source: &archive, SourceName: "-"}, image, client.ImageImportOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		e.t.Fatal(err)
	}
}

// run starts a container that sleeps on the network called name, with ports
// published under their own numbers, and returns what ends it.
func (e *engine) run(containerName, name string, ports ...uint16) (stop func()) {
	e.t.Helper()
	ctx := context.Background()
	bindings, exposed := apinetwork.PortMap{}, apinetwork.PortSet{}
	for _, n := range ports {
		port, _ := apinetwork.PortFrom(n, apinetwork.TCP)
		exposed[port] = struct{}{}
		bindings[port] = []apinetwork.PortBinding{{HostPort: fmt.Sprint(n)}}
	}
	made, err := e.client.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: containerName,
		Config: &container.Config{Image: image, ExposedPorts: exposed, Cmd: []string{"/busybox", "sleep", "86400"},
			StopSignal: "SIGKILL"},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(name), PortBindings: bindings},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	if _, err := e.client.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		e.t.Fatal(err)
	}
	return func() {
		e.t.Helper()
		if _, err := e.client.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			e.t.Fatal(err)
		}
	}
}

// flush takes all rules and chains from the tables filter and nat.
func (e *engine) flush(host netns.NsHandle) {
	e.t.Helper()
	inside(e.t, host, func() error {
		for _, line := range []string{"-F", "-X", "-t nat -F", "-t nat -X"} {
			if out, err := exec.Command("iptables", strings.Fields(line)...).CombinedOutput(); err != nil {
				return fmt.Errorf("iptables %s: %w: %s", line, err, out)
			}
		}
		return nil
	})
}
