package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// programs are what is measured, ours and the others', which are of the
// versions in go.mod, by their names in the directory of programs.
func programs() map[string]string {
	const own, stock = "github.com/dcos/dcos-overlay/", "github.com/containernetworking/plugins/plugins/"
	return map[string]string{
		"dcos-overlay":             own + "plugins/dcos-overlay",
		"dcos-ipam":                own + "plugins/dcos-ipam",
		"dcos-overlay-call":        own + "plugins/dcos-overlay-call",
		"dcos-overlay-coordinator": own + "coordinator",
		"dcos-overlay-companion":   own + "companion",
		"bench-coordinator":        own + "bench/coordinator",
		"floor":                    own + "bench/floor",
		"bridge":                   stock + "main/bridge",
		"host-local":               stock + "ipam/host-local",
		"portmap":                  stock + "meta/portmap",
	}
}

// flannels are where flannel's CNI plugin can be had, by preference: its own
// module, and the last release of the stock plugins that had it among them. It
// is not in go.mod, which can have one version of the stock plugins only.
func flannels() []string {
	return []string{
		"github.com/flannel-io/cni-plugin@v1.9.1-flannel1",
		"github.com/containernetworking/plugins/plugins/meta/flannel@v0.9.1",
	}
}

const (
	// buildTimeout bounds the build of one program when nothing is cached.
	buildTimeout = 10 * time.Minute
	// installTimeout bounds getting and building a module that is not in
	// go.mod; such a program is small.
	installTimeout = time.Minute
)

// build builds all programs alike, as make build does.
func build(dir string) error {
	for name, pkg := range programs() {
		if err := compile(buildTimeout, "build", nil, "-o", filepath.Join(dir, name), pkg); err != nil {
			return err
		}
	}
	return nil
}

// install puts the first of pkgs that can be had into dir as name. Its error is
// why none can.
func install(dir, name string, pkgs []string) error {
	bin, err := os.MkdirTemp(dir, name+"-")
	if err != nil {
		return err
	}
	var errs []error
	for _, pkg := range pkgs {
		if err := compile(installTimeout, "install", []string{"GOBIN=" + bin}, pkg); err != nil {
			errs = append(errs, err)
			continue
		}
		// go install names a program after its package.
		built, err := filepath.Glob(filepath.Join(bin, "*"))
		if err != nil || len(built) != 1 {
			return fmt.Errorf("install %s: it makes %d programs: %w", pkg, len(built), err)
		}
		return errors.Join(os.Rename(built[0], filepath.Join(dir, name)), os.Remove(bin))
	}
	return errors.Join(append(errs, os.Remove(bin))...)
}

// compile runs one of go's commands.
func compile(limit time.Duration, command string, env []string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, "go", append([]string{command, "-buildvcs=false", "-trimpath", "-ldflags", "-s -w"}, args...)...)
	c.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", command, args[len(args)-1], err, bytes.TrimSpace(out))
	}
	return nil
}
