package main

import (
	"archive/zip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// proxy serves one module, example.test/tool@v1.0.0, from a directory.
func proxy(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "example.test", "tool", "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	const mod = "module example.test/tool\n"
	for name, text := range map[string]string{"list": "v1.0.0\n", "v1.0.0.info": `{"Version": "v1.0.0"}`, "v1.0.0.mod": mod} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(at, "v1.0.0.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z := zip.NewWriter(f)
	for name, text := range map[string]string{"go.mod": mod, "main.go": "package main\n\nfunc main() { println(\"here\") }\n"} {
		w, err := z.Create("example.test/tool@v1.0.0/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"GOPROXY": "file://" + dir, "GOSUMDB": "off", "GOMODCACHE": t.TempDir(), "GOFLAGS": "-modcacherw",
	} {
		t.Setenv(name, value)
	}
}

// TestInstall: the first module that can be had is the one.
func TestInstall(t *testing.T) {
	proxy(t)
	dir := t.TempDir()
	if err := install(dir, "flannel", []string{"example.test/none@v1.0.0", "example.test/tool@v1.0.0"}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "flannel")).CombinedOutput()
	if err != nil || string(out) != "here\n" {
		t.Errorf("%q, %v", out, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside it there is more: %v, %v", left, err)
	}
	err = install(dir, "other", []string{"example.test/none@v1.0.0", "example.test/tool@v2.0.0"})
	if err == nil || !strings.Contains(err.Error(), "example.test/none@v1.0.0") || !strings.Contains(err.Error(), "example.test/tool@v2.0.0") {
		t.Errorf("an error that does not name both: %v", err)
	}
}
