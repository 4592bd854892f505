package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const module = "github.com/dcos/dcos-overlay"

// programs are the project's own, by the name of the binary.
var programs = map[string]string{
	"dcos-overlay":             module + "/plugins/dcos-overlay",
	"dcos-ipam":                module + "/plugins/dcos-ipam",
	"dcos-overlay-coordinator": module + "/coordinator",
	"dcos-overlay-companion":   module + "/companion",
}

// tools are what they are tested with: each binary has its package's name.
var tools = []string{
	module + "/integration/probe",
	"github.com/containernetworking/cni/cnitool",
	"github.com/containernetworking/plugins/plugins/ipam/host-local",
	"github.com/containernetworking/plugins/plugins/ipam/static",
	"github.com/containernetworking/plugins/plugins/main/bridge",
	"github.com/containernetworking/plugins/plugins/main/loopback",
	"github.com/containernetworking/plugins/plugins/meta/portmap",
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
	}
	return nil
}

// BuildTools builds all but the project's own programs into dir.
func BuildTools(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return build(ctx, dir, tools...)
}

func build(ctx context.Context, out string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-o", out}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	// Static, for containers that have no C library.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %v: %w: %s", packages, err, tail(string(text)))
	}
	return nil
}
