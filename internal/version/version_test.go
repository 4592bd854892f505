package version

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestString asks a linked program, since only that shows whether the linker
// finds the variable.
func TestString(t *testing.T) {
	if got := say(t, "-X github.com/dcos/dcos-overlay/internal/version.described=v9.8.7-6-g54321"); got != "dcos-ipam v9.8.7-6-g54321\n" {
		t.Errorf("the linker was told v9.8.7-6-g54321, the program says %q", got)
	}
	got := say(t, "")
	if name, v, ok := strings.Cut(got, " "); !ok || name != "dcos-ipam" || strings.TrimSpace(v) == "" || strings.Contains(v, "9.8.7") {
		t.Errorf("when the linker was told nothing, the program says %q", got)
	}
}

// say is what the smallest program says of its version.
func say(t *testing.T, ldflags string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "dcos-ipam")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags", ldflags, "-o", bin, "../../plugins/dcos-ipam").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.Command(bin, "--version").CombinedOutput()
	if err != nil {
		t.Fatalf("dcos-ipam --version: %v\n%s", err, out)
	}
	return string(out)
}
