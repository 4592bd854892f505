package manual

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestEnvironment: what Go has in the home of whoever runs the test is used on
// hosts, where root's home is another.
func TestEnvironment(t *testing.T) {
	home := t.TempDir()
	for name, value := range map[string]string{"HOME": home, "GOENV": "", "GOMODCACHE": "", "GOCACHE": "", "GOPATH": "", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "GOPROXY": "off"} {
		t.Setenv(name, value)
		if value == "" {
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	env, err := environment(t.Context(), "/programs")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"HOME=/root", "PROGRAMS=/programs", "GOPROXY=off",
		"GOENV=" + filepath.Join(home, ".config/go/env"), "GOCACHE=" + filepath.Join(home, ".cache/go-build"),
		"GOPATH=" + filepath.Join(home, "go"), "GOMODCACHE=" + filepath.Join(home, "go/pkg/mod"),
	} {
		if !slices.Contains(env, want) {
			t.Errorf("there is no %s among %q", want, env)
		}
	}
}
