// Package delegate runs other CNI plugins. One that is under way ends with the
// process that started it: a plugin that went on would map ports, or reserve
// addresses, for a container that is gone.
package delegate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
	"golang.org/x/sys/unix"
)

// waitDelay bounds how long a killed plugin's children may keep its output
// open.
const waitDelay = time.Second

// Call is one run of a plugin, in the words of the CNI specification.
type Call struct {
	// Program is the plugin's path.
	Program string
	// Conf is its configuration.
	Conf                             []byte
	Verb, ContainerID, Netns, IfName string
	// Args are CNI_ARGS, CNIPath is CNI_PATH.
	Args, CNIPath string
}

// Failure is that of a plugin which ended with one.
type Failure struct {
	// Reason is one line: what the plugin gave as its error, or its status and
	// the first line of what it printed.
	Reason string
	// Details are what else it said, in lines; they may be many.
	Details string
}

func (f *Failure) Error() string { return f.Reason }

// Find looks for a plugin in the directories of a CNI_PATH. The specification's
// own library would do it too, but is linked with a client of tracing services
// and HTTP, which each start of a plugin would pay for.
func Find(plugin, cniPath string) (string, error) {
	for _, dir := range filepath.SplitList(cniPath) {
		path := filepath.Join(dir, plugin)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no plugin %q in CNI_PATH (%s)", plugin, cniPath)
}

// Result runs a plugin that answers with a result. One that does not say of
// which version it is, is of the configuration's.
func (c Call) Result(ctx context.Context) (types.Result, error) {
	out, err := c.Run(ctx)
	if err != nil {
		return nil, err
	}
	var said map[string]any
	if err := json.Unmarshal(out, &said); err != nil {
		return nil, fmt.Errorf("read the result of %s: %w", c.Program, err)
	}
	var asked struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(c.Conf, &asked); err != nil {
		return nil, fmt.Errorf("read the configuration of %s: %w", c.Program, err)
	}
	version, _ := said["cniVersion"].(string)
	if version == "" && said != nil {
		version, said["cniVersion"] = asked.CNIVersion, asked.CNIVersion
		if out, err = json.Marshal(said); err != nil {
			return nil, fmt.Errorf("read the result of %s: %w", c.Program, err)
		}
	}
	result, err := create.Create(version, out)
	if err != nil {
		return nil, fmt.Errorf("read the result of %s: %w", c.Program, err)
	}
	return result, nil
}

// environment is the process's own with the call's in the place of its own.
func (c Call) environment() []string {
	// The last of several values is what counts (os/exec).
	return append(os.Environ(),
		"CNI_COMMAND="+c.Verb, "CNI_CONTAINERID="+c.ContainerID, "CNI_NETNS="+c.Netns,
		"CNI_ARGS="+c.Args, "CNI_IFNAME="+c.IfName, "CNI_PATH="+c.CNIPath)
}

// Run runs a plugin to its end, and answers what it prints. The error of one
// that ends with a failure is a *Failure.
func (c Call) Run(ctx context.Context) ([]byte, error) {
	// The signal below comes when the thread ends that started the plugin.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Program)
	cmd.Env = c.environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Conf), &stdout, &stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = waitDelay
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s is ended: %w", c.Program, context.Cause(ctx))
	}
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return nil, err
	}
	var said types.Error
	if json.Unmarshal(stdout.Bytes(), &said) == nil && said.Msg != "" {
		return nil, &Failure{Reason: said.Msg, Details: said.Details}
	}
	first, rest, _ := strings.Cut(strings.TrimSpace(stderr.String()+" "+stdout.String()), "\n")
	if first != "" {
		first = ": " + first
	}
	return nil, &Failure{Reason: ended.String() + first, Details: rest}
}
