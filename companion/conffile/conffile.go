// Package conffile keeps a CNI configuration for each overlay in the directory
// that a Mesos agent reads. Files with another content than ours are no
// concern of it, but for the names of overlays that are wanted: those are
// written over, as DC/OS does.
package conffile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/wholefile"
)

const (
	ext = ".conf"
	// pluginType is the name of the plugin's program.
	pluginType = "dcos-overlay"
)

// Dir is the directory.
type Dir struct {
	// Path is empty where no files are kept.
	Path string
	// AgentConfig is the agent's file, for the plugins; empty where the
	// default serves.
	AgentConfig string
}

// Keep writes the files of the overlays that are missing or differ, and says
// in words which.
func (d Dir) Keep(overlays []string) (repairs []string, err error) {
	if d.Path == "" {
		return nil, nil
	}
	var errs []error
	for _, o := range overlays {
		repair, err := d.write(o)
		if repair != "" {
			repairs = append(repairs, repair)
		}
		errs = append(errs, err)
	}
	return repairs, errors.Join(errs...)
}

// Prune removes the files that were written by Keep for other overlays than
// those, and says in words which.
func (d Dir) Prune(overlays []string) (repairs []string, err error) {
	if d.Path == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the CNI configurations: %w", err)
	}
	var errs []error
	for _, e := range entries {
		overlay, ok := strings.CutSuffix(e.Name(), ext)
		if !ok || slices.Contains(overlays, overlay) || !d.wrote(overlay) {
			continue
		}
		if err := os.Remove(d.file(overlay)); err != nil {
			errs = append(errs, fmt.Errorf("remove the CNI configuration of overlay %s: %w", overlay, err))
			continue
		}
		repairs = append(repairs, fmt.Sprintf("%s was left over, and is removed", d.file(overlay)))
	}
	return repairs, errors.Join(errs...)
}

func (d Dir) file(overlay string) string { return filepath.Join(d.Path, overlay+ext) }

// wrote tells whether the overlay's file is there as Keep writes it.
func (d Dir) wrote(overlay string) bool {
	have, err := os.ReadFile(d.file(overlay))
	if err != nil {
		return false
	}
	want, err := d.content(overlay)
	return err == nil && string(have) == string(want)
}

func (d Dir) content(overlay string) ([]byte, error) {
	conf := map[string]any{
		"cniVersion": cniconf.DefaultVersion,
		"name":       overlay,
		"type":       pluginType,
		"ipam":       map[string]string{"type": cniconf.TypeIPAM},
	}
	if d.AgentConfig != "" {
		conf["agentConfig"] = d.AgentConfig
	}
	text, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the CNI configuration of overlay %s: %w", overlay, err)
	}
	return append(text, '\n'), nil
}

func (d Dir) write(overlay string) (repair string, err error) {
	if d.wrote(overlay) {
		return "", nil
	}
	path := d.file(overlay)
	was := "differed"
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		was = "was missing"
	}
	want, err := d.content(overlay)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(d.Path, 0o755); err != nil {
		return "", fmt.Errorf("make cni_dir: %w", err)
	}
	if err := wholefile.Write(path, want); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s", path, was), nil
}
