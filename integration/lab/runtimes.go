package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

const (
	// diskDir is one of the plainDirs, where runtimes can stack layers.
	diskDir = "/var/lib/docker"
	// imageRef is Image as containerd and podman complete its name.
	imageRef = "docker.io/library/" + Image + ":latest"
	// cniBinDir is where runtimes look for plugins.
	cniBinDir = "/opt/cni/bin"
	// olderPodman is where scripts/podman-cni.sh keeps a podman with CNI and
	// its libraries, on a machine whose own podman is built without.
	olderPodman = "/var/cache/dcos-overlay-test/podman-cni"
)

// cgroup is the parent of all cgroups that are made on the host; the lab
// removes it.
func (h *Host) cgroup() string { return path.Join("/", filepath.Base(h.lab.dir), h.Name) }

// ShareCNI lays the lab's plugins and one list of them where container
// runtimes look for both, in place of what was there.
func (h *Host) ShareCNI(ctx context.Context, conflist []byte) error {
	_, err := h.Run(ctx, "sh", "-ec", `rm -rf "$1" "$2"; mkdir -p "$(dirname "$1")"; ln -s "$0" "$1"`, h.lab.bin, cniBinDir, cniConfigDir)
	if err != nil {
		return err
	}
	return h.WriteFile(ctx, path.Join(cniConfigDir, "10-lab.conflist"), conflist)
}

// imageArchive is Image as docker save writes one: what ctr and podman import.
func (l *Lab) imageArchive() ([]byte, error) {
	layer, err := l.image()
	if err != nil {
		return nil, fmt.Errorf("making the image %s: %w", Image, err)
	}
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Cmd": []string{"probe", "pause"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{imageRef}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range []struct {
		name string
		data []byte
	}{{"layer.tar", layer}, {"config.json", config}, {"manifest.json", manifest}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return archive.Bytes(), err
}

// loadImage writes Image's archive into the host and has a command read it.
func (h *Host) loadImage(ctx context.Context, command ...string) error {
	archive, err := h.lab.imageArchive()
	if err != nil {
		return err
	}
	const at = "/tmp/image.tar"
	if err := h.WriteFile(ctx, at, archive); err != nil {
		return err
	}
	_, err = h.Run(ctx, append(command, at)...)
	return err
}

// StartContainerd starts containerd on the host and waits until it answers and
// has the image.
func (h *Host) StartContainerd(ctx context.Context) (*Process, error) {
	// Kubernetes' part wants a network of its own.
	const conf = "version = 2\nroot = \"" + diskDir + "/containerd\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"
	if err := h.WriteFile(ctx, "/etc/containerd/config.toml", []byte(conf)); err != nil {
		return nil, err
	}
	p, err := h.Start(ctx, "containerd", "containerd", "--config", "/etc/containerd/config.toml")
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err = p.waitUntil(ready, "containerd to answer", func(ctx context.Context) error {
		_, err := h.Run(ctx, "ctr", "version")
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, h.loadImage(ctx, "ctr", "image", "import")
}

// CtrRun runs a command in a container of Image by "ctr run --cni", on the
// network that ShareCNI left. ctr stays, and detaches the container when its
// command has ended.
func (h *Host) CtrRun(ctx context.Context, id string, command ...string) (*Process, error) {
	args := []string{"ctr", "run", "--rm", "--cni", "--cgroup", path.Join(h.cgroup(), id), imageRef, id}
	return h.Start(ctx, id, append(args, command...)...)
}

// SetUpPodman has podman use CNI, with the network that ShareCNI left, and
// gives it the image.
func (h *Host) SetUpPodman(ctx context.Context) error {
	// No systemd is in reach, nor its journal.
	const containers = `[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
[network]
network_backend = "cni"
network_config_dir = "` + cniConfigDir + `"
cni_plugin_dirs = ["` + cniBinDir + `"]
`
	const storage = `[storage]
driver = "overlay"
graphroot = "` + diskDir + `/podman"
runroot = "/run/containers/storage"
`
	// In the host's own root, which nobody else sees.
	if _, err := h.Run(ctx, "sh", "-ec", `if [ -d "$0" ]; then cp -a "$0/." /; ldconfig; fi`, olderPodman); err != nil {
		return err
	}
	if err := h.WriteFile(ctx, "/etc/containers/containers.conf", []byte(containers)); err != nil {
		return err
	}
	if err := h.WriteFile(ctx, "/etc/containers/storage.conf", []byte(storage)); err != nil {
		return err
	}
	const without = "podman is built without CNI, and scripts/install-deps.sh gets one that is not"
	backend, err := h.Run(ctx, "podman", "info", "--format", "{{.Host.NetworkBackend}}")
	if err != nil {
		return fmt.Errorf("asking podman for its network backend: it may be that %s: %w", without, err)
	}
	if backend = strings.TrimSpace(backend); backend != "cni" {
		return fmt.Errorf("podman's network backend is %s: %s", backend, without)
	}
	return h.loadImage(ctx, "podman", "load", "-i")
}

// PodmanContainer runs a container of Image on a CNI network by podman, with
// more arguments of podman run.
func (h *Host) PodmanContainer(ctx context.Context, name, network string, runArgs ...string) (*Container, error) {
	args := []string{"podman", "run", "-d", "--pull=never", "--name", name, "--network", network, "--cgroup-parent", h.cgroup()}
	if _, err := h.Run(ctx, append(append(args, runArgs...), imageRef)...); err != nil {
		return nil, err
	}
	out, err := h.Run(ctx, "podman", "inspect", name)
	if err != nil {
		return nil, err
	}
	return h.inspected(name, network, []byte(out), "podman", "rm", "-f", "-t", "0", name)
}
