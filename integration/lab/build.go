package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/dcos/dcos-overlay/integration/lab/hostinit"
)

const module = "github.com/dcos/dcos-overlay"

// programs are the project's own, by the name of the binary.
var programs = map[string]string{
	"dcos-overlay":             module + "/plugins/dcos-overlay",
	"dcos-ipam":                module + "/plugins/dcos-ipam",
	"dcos-overlay-call":        module + "/plugins/dcos-overlay-call",
	"dcos-overlay-coordinator": module + "/coordinator",
	"dcos-overlay-companion":   module + "/companion",
	"dcos-overlayctl":          module + "/ctl",
}

// tools are what they are tested with: each binary has its package's name.
var tools = []string{
	module + "/integration/probe",
	"github.com/containernetworking/cni/cnitool",
	"github.com/containernetworking/plugins/plugins/ipam/host-local",
	"github.com/containernetworking/plugins/plugins/ipam/static",
	"github.com/containernetworking/plugins/plugins/main/bridge",
	"github.com/containernetworking/plugins/plugins/main/loopback",
	"github.com/containernetworking/plugins/plugins/main/macvlan",
	"github.com/containernetworking/plugins/plugins/main/ptp",
	"github.com/containernetworking/plugins/plugins/meta/firewall",
	"github.com/containernetworking/plugins/plugins/meta/portmap",
	"github.com/containernetworking/plugins/plugins/meta/tuning",
}

// Build builds all that a lab runs into dir: the project's programs, probe,
// cnitool and the stock CNI plugins. It must be called inside the module.
func Build(ctx context.Context, dir string) error {
	if err := BuildTools(ctx, dir); err != nil {
		return err
	}
	for name, pkg := range programs {
		if err := build(ctx, filepath.Join(dir, name), pkg); err != nil {
			return err
		}
		if err := link(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// BuildTools builds all but the project's own programs into dir.
func BuildTools(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := build(ctx, dir, tools...); err != nil {
		return err
	}
	for _, name := range []string{"probe", "cnitool"} {
		if err := link(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// link puts a program into the part of dir that is in a host's PATH, before
// what the machine may have of that name. The stock CNI plugins are not there:
// one has the name of iproute2's bridge.
func link(dir, name string) error {
	inPath := filepath.Join(dir, hostinit.PathDir)
	if err := os.MkdirAll(inPath, 0o755); err != nil {
		return err
	}
	at := filepath.Join(inPath, name)
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(filepath.Join("..", name), at)
}

func build(ctx context.Context, out string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", out}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	// Static, for containers that have no C library.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %v: %w: %s", packages, err, tail(string(text)))
	}
	return nil
}
