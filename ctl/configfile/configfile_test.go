package configfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/network/networkfile"
)

func TestRecognise(t *testing.T) {
	for text, want := range map[string]Kind{
		`{}`:                                   KindAgent,
		`{"master": "a"}`:                      KindAgent,
		`{"network_config": {}}`:               KindAgent,
		`{"cni_dir": "/x", "network": {}}`:     KindNetwork,
		`{"vtep_mtu": 1400}`:                   KindNetwork,
		"dcos_overlay_network: {}\nagents: []": KindNetwork,
		`{"agents": [], "network": {}}`:        KindState,
		`{"name": "dcos", "type": "bridge"}`:   KindCNI,
		`{"name": "dcos", "ipam": {}}`:         KindCNI,
		`{"name": "dcos", "plugins": []}`:      KindCNIList,
		`{"name": "dcos"}`:                     KindUnknown,
		`[]`:                                   KindUnknown,
		`text`:                                 KindUnknown,
		``:                                     KindUnknown,
	} {
		if got, _ := Check([]byte(text)); got != want {
			t.Errorf("%s is taken for %s, want %s", text, got, want)
		}
	}
}

// FuzzCheck: whatever the text is, there is an answer, every problem has a
// place in the text, and what has no problem is taken by who reads it.
func FuzzCheck(f *testing.F) {
	files, err := filepath.Glob("../testdata/validate/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, ".golden") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, problems := Check(data)
		lines := strings.Count(string(data), "\n") + 1
		for _, p := range problems {
			if p.Line < 0 || p.Line > lines || p.Message == "" || strings.Contains(p.String(), "\n") {
				t.Errorf("a problem of %d lines: %q", lines, p.String())
			}
		}
		switch kind {
		case KindAgent:
			_, err := agentconf.Parse(data)
			if (err == nil) != (len(problems) == 0) {
				t.Errorf("the agent says %v, and here is said %v", err, problems)
			}
		case KindNetwork:
			_, err := networkfile.Parse(data)
			if (err == nil) != (len(problems) == 0) {
				t.Errorf("the coordinator says %v, and here is said %v", err, problems)
			}
		case KindCNI:
			c, err := cniconf.Parse(data, "")
			if len(problems) == 0 && err != nil && strings.Contains(string(data), pluginType) && c != nil {
				t.Errorf("the plugin says %v, and here nothing is said", err)
			}
		case KindUnknown:
			if len(problems) == 0 {
				t.Error("it is nothing, and nothing is wrong with it")
			}
		}
	})
}
