// Package portmap has the stock CNI plugin portmap lead ports of the host to a
// container. It runs that program, and so is only for containers that have
// such ports.
package portmap

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/delegate"
)

// Name is the program's.
const Name = "portmap"

// oldest is the first version of the specification with CHECK; each portmap
// since 0.8.0 (2019) knows it.
const oldest = "0.4.0"

// Mapping are the ports of one container's interface.
type Mapping struct {
	// Program is portmap's path; see Find.
	Program string
	// CNIPath is where the runtime has its plugins.
	CNIPath string
	// Version is the configuration's.
	Version string
	// Network is the CNI network's name. The rules are known by it and the
	// container.
	Network                    string
	ContainerID, IfName, Netns string
	Ports                      []cniconf.Port
}

// NotFoundError says that there is no portmap.
type NotFoundError struct {
	// CNIPath is where it was looked for.
	CNIPath string
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("the plugin %s is not in CNI_PATH (%s), and containers with port mappings need it: install it there, or set \"mapPorts\" to false in the CNI configuration if another program maps them", Name, e.CNIPath)
}

// Find looks for the program in a CNI_PATH; without it the error is a
// *NotFoundError.
func Find(cniPath string) (string, error) {
	for _, dir := range filepath.SplitList(cniPath) {
		path := filepath.Join(dir, Name)
		if fi, err := os.Stat(path); filepath.IsAbs(path) && err == nil && fi.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", &NotFoundError{CNIPath: cniPath}
}

// Add maps the ports to the container's first address of each family in
// result. What it has done when it fails is Remove's to undo.
func (m Mapping) Add(ctx context.Context, result *current.Result) error {
	return m.run(ctx, "ADD", result, m.Ports)
}

// Check fails when the rules for result are not there.
func (m Mapping) Check(ctx context.Context, result *current.Result) error {
	return m.run(ctx, "CHECK", result, m.Ports)
}

// Remove removes all of the mapping's rules; none is success. The ports need
// not be known.
func (m Mapping) Remove(ctx context.Context) error {
	ports := m.Ports
	if len(ports) == 0 {
		// portmap does nothing without, and removes by network and container.
		ports = []cniconf.Port{{HostPort: 1, ContainerPort: 1, Protocol: "tcp"}}
	}
	return m.run(ctx, "DEL", nil, ports)
}

func (m Mapping) run(ctx context.Context, verb string, result *current.Result, ports []cniconf.Port) error {
	conf := map[string]any{
		"cniVersion":    m.version(),
		"name":          m.Network,
		"type":          Name,
		"runtimeConfig": map[string]any{"portMappings": ports},
	}
	if result != nil {
		converted, err := result.GetAsVersion(m.version())
		if err != nil {
			return fmt.Errorf("convert the result for %s: %w", Name, err)
		}
		conf["prevResult"] = converted
	}
	stdin, err := json.Marshal(conf)
	if err != nil {
		return fmt.Errorf("encode the configuration of %s: %w", Name, err)
	}
	call := delegate.Call{
		Program:     m.Program,
		Conf:        stdin,
		Verb:        verb,
		ContainerID: m.ContainerID,
		Netns:       m.Netns,
		IfName:      m.IfName,
		CNIPath:     m.CNIPath,
	}
	if _, err := call.Run(ctx); err != nil {
		return fmt.Errorf("%s of port mappings %s by %s: %w", verb, list(m.Ports), m.Program, err)
	}
	return nil
}

// version is the configuration's, or the oldest that does.
func (m Mapping) version() string {
	if ok, err := version.GreaterThanOrEqualTo(m.Version, oldest); err == nil && ok {
		return m.Version
	}
	return oldest
}

func list(ports []cniconf.Port) string {
	var out []string
	for _, p := range ports {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}
