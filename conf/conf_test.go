package conf

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/network/networkfile"
)

// TestSamples finds every file, so that a new sample has to be given a parser.
func TestSamples(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.Name() == "testdata" {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".md") {
			return err
		}
		seen++
		t.Run(path, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			parse(t, path, data)
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != 16 {
		t.Errorf("found %d samples, want 16: correct the number, and README.md", seen)
	}
}

func parse(t *testing.T, path string, data []byte) {
	switch filepath.Ext(path) {
	case ".yaml":
		if path != alertsPath {
			t.Errorf("no parser is known for %s", path)
		}
		promtool(t, "check", "rules", path)
	case ".json":
		if path == dashboardPath {
			readDashboard(t)
			return
		}
		if strings.HasPrefix(path, "agent") {
			agent(t, path)
			return
		}
		if _, err := networkfile.Parse(data); err != nil {
			t.Error(err)
		}
	case ".cni":
		mesos(t, path, data)
	case ".conflist":
		conflist(t, data)
	case ".service", ".link", ".network":
		ini(t, data)
	case ".env":
		environment(t, path, data)
	case ".conf":
		if strings.HasPrefix(path, "tmpfiles.d") {
			tmpfiles(t, data)
		} else {
			ini(t, data)
		}
	default:
		t.Errorf("no parser is known for %s", path)
	}
}

func agent(t *testing.T, path string) {
	c, err := agentconf.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	bridges := path == "agent.json"
	if c.Network.MesosBridge != bridges || c.Network.DockerBridge != bridges || !c.Network.AllocateSubnet {
		t.Errorf("network_config is %+v", c.Network)
	}
}

// mesos checks what the network/cni isolator needs: one plugin, and the shape
// of results that it reads.
func mesos(t *testing.T, path string, data []byte) {
	c, err := cniconf.Parse(data, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSuffix(path, ".cni"); c.Overlay != want || c.CNIVersion != "0.2.0" || c.IPAMType != cniconf.TypeIPAM {
		t.Errorf("got %+v", c)
	}
	if _, ok := overlays(t)[c.Overlay]; !ok {
		t.Errorf("network.json has no overlay %s", c.Overlay)
	}
}

func conflist(t *testing.T, data []byte) {
	list, err := libcni.ConfListFromBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, p := range list.Plugins {
		types = append(types, p.Network.Type)
	}
	if !slices.Equal(types, []string{"dcos-overlay", "portmap"}) {
		t.Errorf("the plugins are %q", types)
	}
	if _, ok := overlays(t)[list.Name]; !ok {
		t.Errorf("network.json has no overlay %s", list.Name)
	}
}

func overlays(t *testing.T) map[string]network.Overlay {
	t.Helper()
	data, err := os.ReadFile("network.json")
	if err != nil {
		t.Fatal(err)
	}
	n, err := networkfile.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]network.Overlay{}
	for _, o := range n.Overlays {
		all[o.Name] = o
	}
	return all
}

// ini checks the form of units and drop-ins: sections of key=value lines. What
// the keys mean, systemd-analyze verify knows.
func ini(t *testing.T, data []byte) {
	section := ""
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line
		default:
			key, _, ok := strings.Cut(line, "=")
			if !ok || section == "" || strings.ContainsAny(key, " \t") {
				t.Errorf("line %d is no key=value in a section: %s", i+1, line)
			}
		}
	}
	if section == "" {
		t.Error("there is no section")
	}
}

// environment checks that each line is a comment or sets what the unit uses,
// also when its comment sign is taken away.
// environment checks that what a sample sets is what its unit uses, and that
// the flags in it are the program's: the manual's rows are all that there are.
func environment(t *testing.T, path string, data []byte) {
	unit, err := os.ReadFile("systemd/dcos-overlay-" + strings.TrimSuffix(path, ".env") + ".service")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, flags, _ := strings.Cut(string(manual), "\n## dcos-overlay-"+strings.TrimSuffix(path, ".env")+"\n")
	flags, _, _ = strings.Cut(flags, "\n## ")
	settings := 0
	for line := range strings.Lines(string(data)) {
		text := strings.TrimPrefix(line, "#")
		if text != line && (strings.HasPrefix(text, " ") || text == "\n") {
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok || !strings.Contains(string(unit), " $"+name+"\n") || !strings.HasPrefix(value, "--") {
			t.Errorf("%q sets nothing that the unit uses", line)
		}
		for word := range strings.FieldsSeq(value) {
			if strings.HasPrefix(word, "--") && !strings.Contains(flags, "`"+word+"`") {
				t.Errorf("the program has no flag %s", word)
			}
		}
		settings++
	}
	if settings == 0 {
		t.Error("it shows no setting")
	}
}

func tmpfiles(t *testing.T, data []byte) {
	var dirs []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		if len(fields) != 6 || fields[0] != "d" {
			t.Errorf("%q makes no directory", line)
			continue
		}
		dirs = append(dirs, fields[1])
	}
	if !slices.Equal(dirs, []string{agentconf.DefaultStateDir, agentconf.DefaultRunDir}) {
		t.Errorf("the directories are %q", dirs)
	}
}

// TestDeviceMatches keeps the three lists of our devices the same.
func TestDeviceMatches(t *testing.T) {
	want := []string{network.VTEPName, network.MesosBridgeName("*"), network.DockerBridgeName("*"), "dov*"}
	for _, tt := range []struct{ path, key, sep string }{
		{"network/10-dcos-overlay.link", "OriginalName=", " "},
		{"network/10-dcos-overlay.network", "Name=", " "},
		{"NetworkManager/90-dcos-overlay.conf", "unmanaged-devices+=", ";"},
	} {
		data, err := os.ReadFile(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(data)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), tt.key); ok {
				got = strings.Split(strings.ReplaceAll(value, "interface-name:", ""), tt.sep)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %s%q, want %q", tt.path, tt.key, got, want)
		}
	}
}
