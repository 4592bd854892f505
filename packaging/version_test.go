package packaging

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestVersion takes a repository from its first commit to a tag and beyond.
func TestVersion(t *testing.T) {
	root := t.TempDir()
	script := filepath.Join(root, "packaging/version.sh")
	if err := os.MkdirAll(filepath.Dir(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(read(t, "version.sh")), 0o755); err != nil {
		t.Fatal(err)
	}
	// Git looks above the directory, too; there must be no repository.
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(root))
	expect := func(pattern string) {
		t.Helper()
		if got := strings.TrimSuffix(command(t, "", script), "\n"); !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
			t.Errorf("the version is %q, not %s", got, pattern)
		}
	}
	git := func(args ...string) {
		t.Helper()
		command(t, root, append([]string{"git", "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
	}
	expect(`unknown`)
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "first")
	expect(`v0\.0\.0-1-g[0-9a-f]{7,}`)
	git("tag", "nightly")
	git("tag", "-a", "-m", "first", "v1.2.0-rc1")
	expect(`v1\.2\.0-rc1`)
	git("commit", "-q", "--allow-empty", "-m", "second")
	expect(`v1\.2\.0-rc1-1-g[0-9a-f]{7,}`)
	if err := os.WriteFile(script, []byte(read(t, "version.sh")+"# more\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	expect(`v1\.2\.0-rc1-1-g[0-9a-f]{7,}-dirty`)
}
