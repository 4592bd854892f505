package conffile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/cniconf"
)

func TestKeepAndPrune(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "cni"), AgentConfig: "/etc/agent.json"}
	keep := func(want int, overlays ...string) {
		t.Helper()
		if got, err := d.Keep(overlays); err != nil || len(got) != want {
			t.Errorf("Keep(%q) repaired %q, %v; want %d repairs", overlays, got, err, want)
		}
	}
	if got, err := d.Prune(nil); err != nil || got != nil {
		t.Errorf("without a directory: %q, %v", got, err)
	}
	keep(2, "dcos", "dcos6")
	keep(0, "dcos", "dcos6")
	text, err := os.ReadFile(filepath.Join(d.Path, "dcos.conf"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := cniconf.Parse(text, "")
	if err != nil || c.Overlay != "dcos" || c.AgentConfig != "/etc/agent.json" || c.IPAMType != cniconf.TypeIPAM {
		t.Errorf("the plugin reads %s as %+v, %v", text, c, err)
	}
	// Somebody's own file, one in another place's name, one edited.
	for name, content := range map[string]string{
		"own.conf":  `{"name": "own", "type": "dcos-overlay"}`,
		"copy.conf": string(text),
		"list.json": string(text),
	} {
		if err := os.WriteFile(filepath.Join(d.Path, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.Path, "dcos6.conf"), []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
	keep(1, "dcos", "dcos6")
	got, err := d.Prune([]string{"dcos6"})
	if err != nil || len(got) != 1 || !strings.Contains(got[0], "dcos.conf") {
		t.Errorf("pruned %q, %v", got, err)
	}
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"copy.conf", "dcos6.conf", "list.json", "own.conf"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
}

func TestNowhere(t *testing.T) {
	for _, f := range []func([]string) ([]string, error){Dir{}.Keep, Dir{}.Prune} {
		if got, err := f([]string{"dcos"}); err != nil || got != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d := Dir{Path: filepath.Join(file, "cni")}
	if _, err := d.Keep([]string{"dcos"}); err == nil || !strings.Contains(err.Error(), "cni_dir") {
		t.Errorf("got %v", err)
	}
}
