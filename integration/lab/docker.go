package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Image is the name of the image that StartDocker makes: busybox, and probe,
// which pauses unless told otherwise.
const Image = "probe"

// StartDocker starts a Docker Engine on the host, with its default socket, and
// waits until it answers and has the image. It has no default bridge unless
// args has a --bridge.
func (h *Host) StartDocker(ctx context.Context, args ...string) (*Process, error) {
	command := []string{
		"dockerd",
		// No systemd is in reach that could make the cgroups.
		"--exec-opt=native.cgroupdriver=cgroupfs",
		"--cgroup-parent=" + h.cgroup(),
	}
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--bridge") }) {
		command = append(command, "--bridge=none")
	}
	p, err := h.Start(ctx, "dockerd", append(command, args...)...)
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err = p.waitUntil(ready, "dockerd to answer", func(ctx context.Context) error {
		_, err := h.Run(ctx, "docker", "version")
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := h.Run(ctx, "docker", "image", "inspect", Image); err == nil {
		return p, nil
	}
	image, err := h.lab.image()
	if err != nil {
		return nil, fmt.Errorf("making the image %s: %w", Image, err)
	}
	_, err = h.RunInput(ctx, image, "docker", "import", "--change", `CMD ["probe","pause"]`, "-", Image)
	return p, err
}

// image is the file system of Image as a tar archive.
func (l *Lab) image() ([]byte, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w; install busybox-static", err)
	}
	program, err := elf.Open(busybox)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	if libs, _ := program.ImportedLibraries(); len(libs) > 0 {
		return nil, fmt.Errorf("%s is not static; install busybox-static", busybox)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("asking busybox for its applets: %w", err)
	}

	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, dir := range []string{"bin/", "etc/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for name, path := range map[string]string{"bin/busybox": busybox, "bin/probe": filepath.Join(l.bin, "probe")} {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet == "busybox" {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return archive.Bytes(), err
}

// DockerContainer runs a container of Image in a Docker network, with more
// arguments of docker run.
func (h *Host) DockerContainer(ctx context.Context, name, network string, runArgs ...string) (*Container, error) {
	args := append([]string{"docker", "run", "-d", "--name", name, "--net", network}, runArgs...)
	if _, err := h.Run(ctx, append(args, Image)...); err != nil {
		return nil, err
	}
	out, err := h.Run(ctx, "docker", "inspect", name)
	if err != nil {
		return nil, err
	}
	return h.inspected(name, network, []byte(out), "docker", "rm", "-f", name)
}

// inspected is the container that docker inspect, or podman's, tells of, which
// the command remove removes.
func (h *Host) inspected(name, network string, inspect []byte, remove ...string) (*Container, error) {
	var answer []struct {
		State           struct{ Pid int }
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, GlobalIPv6Address string }
		}
	}
	if err := json.Unmarshal(inspect, &answer); err != nil {
		return nil, fmt.Errorf("%s: reading what inspect says of %s: %w", h.Name, name, err)
	}
	if len(answer) != 1 || answer[0].State.Pid == 0 {
		return nil, fmt.Errorf("%s: container %s does not run: %s", h.Name, name, tail(string(inspect)))
	}
	c := h.newContainer(name, fmt.Sprintf("/proc/%d/ns/net", answer[0].State.Pid))
	c.Result = inspect
	attached := answer[0].NetworkSettings.Networks[network]
	// Absent addresses are empty, and stay invalid.
	c.IP4, _ = netip.ParseAddr(attached.IPAddress)
	c.IP6, _ = netip.ParseAddr(attached.GlobalIPv6Address)
	c.remove = func(ctx context.Context) error {
		_, err := h.Run(ctx, remove...)
		return err
	}
	return c, nil
}
