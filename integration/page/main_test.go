// Package page looks at the coordinator's page as people do: in a browser, on
// a live coordinator with agents, real ones and very many played ones.
package page

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var (
	// images is where the pictures for the manual are written to; "" is nowhere.
	images = flag.String("page.images", "", "write pictures of the page into this `directory`")
	// agents is how many are played.
	agents = flag.Int("page.agents", 10000, "how many agents are played, 200 at least")
)

// axeSource is the accessibility checker, a script that runs in the page.
func axeSource(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatalf("axe is not installed: %v; run scripts/install-deps.sh", err)
	}
	return string(text)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contains(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s lacks %q: %q", what, w, text)
		}
	}
}
