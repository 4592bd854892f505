// Package delegate runs other CNI plugins. One that is under way ends with the
// process that started it: a plugin that went on would map ports, or reserve
// addresses, for a container that is gone.
package delegate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// waitDelay bounds how long a killed plugin's children may keep its output
// open.
const waitDelay = time.Second

// Exec runs plugins for package invoke.
type Exec struct {
	version.PluginDecoder
}

var _ invoke.Exec = (*Exec)(nil)

// FindInPath looks for a plugin.
func (*Exec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin runs a plugin to its end, and answers what it prints. A failed
// one's error is what it said, a *types.Error, or its status and stderr.
func (*Exec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	// The signal below comes when the thread ends that started the plugin.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = environ
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = waitDelay
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s is ended: %w", path, context.Cause(ctx))
	}
	var said types.Error
	if json.Unmarshal(stdout.Bytes(), &said) == nil && said.Msg != "" {
		return nil, &said
	}
	if text := strings.TrimSpace(stderr.String() + " " + stdout.String()); text != "" {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	return nil, err
}
