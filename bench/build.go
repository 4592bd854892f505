package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
		"bench-coordinator":        own + "bench/coordinator",
		"floor":                    own + "bench/floor",
		"bridge":                   stock + "main/bridge",
		"host-local":               stock + "ipam/host-local",
		"portmap":                  stock + "meta/portmap",
	}
}

// build builds all programs alike, as make build does.
func build(dir string) error {
	for name, pkg := range programs() {
		c := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), pkg)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", pkg, err, bytes.TrimSpace(out))
		}
	}
	return nil
}
