// Package packaging holds what makes the tarballs and packages of a release,
// and nothing to import. Its tests build them, compare two builds, and try the
// packages on a bare Debian.
package packaging

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// version is one that git describe could say, and the others are what the
	// packages' managers are to make of it.
	version    = "v1.2.0-rc1-4-gabcdef0"
	debVersion = "1.2.0~rc1+4.gabcdef0-1"
	// epoch is when it all was built.
	epoch = 1767225600
)

// programs are what a release has, by its place in the tarball.
func programs() []string {
	return []string{"cni/dcos-overlay", "cni/dcos-ipam", "cni/dcos-overlay-call", "bin/dcos-overlay-coordinator", "bin/dcos-overlay-companion", "bin/dcos-overlayctl"}
}

// TestRelease builds once and looks at the result from all sides, since to
// build takes longest.
func TestRelease(t *testing.T) {
	first, second := copies(t)
	out := filepath.Join(t.TempDir(), "first")
	dist(t, first, out, "amd64 arm64")

	t.Run("Reproducible", func(t *testing.T) {
		again := filepath.Join(t.TempDir(), "another-directory")
		dist(t, second, again, runtime.GOARCH)
		sameBytes(t, out, again)
	})
	t.Run("Checksums", func(t *testing.T) {
		command(t, out, "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS")
		lines := strings.Split(strings.TrimSpace(read(t, filepath.Join(out, "SHA256SUMS"))), "\n")
		// Of each architecture a tarball, an SBOM, and three packages in two
		// formats; and the list itself.
		if files := names(t, out); len(lines) != 16 || len(files) != 17 {
			t.Errorf("%d of the %d files are listed: %q", len(lines), len(files), files)
		}
	})
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run("Tarball/"+arch, func(t *testing.T) { tarball(t, out, arch) })
		t.Run("RPM/"+arch, func(t *testing.T) { rpms(t, out, arch) })
	}
	t.Run("InstalledRPM", func(t *testing.T) { rpmInstalled(t, out) })
	t.Run("BareDebian", func(t *testing.T) { bareDebian(t, out) })
	t.Run("Systemd", func(t *testing.T) { underSystemd(t, out) })
}

// copies puts the source into two directories whose names are not of one
// length: a path that gets into a program makes a difference.
func copies(t *testing.T) (first, second string) {
	t.Helper()
	base := t.TempDir()
	archive := filepath.Join(base, "source.tar")
	command(t, "..", "tar", "--exclude=./.git", "--exclude=./bin", "--exclude=./dist", "--exclude=node_modules", "-cf", archive, ".")
	for _, dir := range []string{"a", "somewhere/else"} {
		dir = filepath.Join(base, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		command(t, dir, "tar", "-xf", archive)
	}
	return filepath.Join(base, "a"), filepath.Join(base, "somewhere/else")
}

// dist builds the source in dir.
func dist(t *testing.T, dir, out, arches string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "packaging/dist.sh"), out)
	cmd.Env = append(os.Environ(), "VERSION="+version, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch), "ARCHES="+arches)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("dist.sh: %v\n%s", err, text)
	}
	t.Logf("%s", text)
}

// sameBytes compares what is in again, for one architecture, with out.
func sameBytes(t *testing.T, out, again string) {
	t.Helper()
	files := slices.DeleteFunc(names(t, again), func(name string) bool { return name == "SHA256SUMS" })
	if len(files) != 8 {
		t.Errorf("there are %d files, not 8: %q", len(files), files)
	}
	for _, name := range files {
		a, b := sha256.Sum256([]byte(read(t, filepath.Join(out, name)))), sha256.Sum256([]byte(read(t, filepath.Join(again, name))))
		if a != b {
			t.Errorf("%s differs between two builds of the same source", name)
		}
	}
}

// tarball unpacks one, and looks at its programs and its SBOM.
func tarball(t *testing.T, out, arch string) {
	name := "dcos-overlay-" + strings.TrimPrefix(version, "v") + "-linux-" + arch
	dir := t.TempDir()
	command(t, dir, "tar", "-xzf", filepath.Join(out, name+".tar.gz"))
	tree := filepath.Join(dir, name)
	for _, path := range []string{
		"LICENSE", "README.md", "sbom.cdx.json", "docs/reference.md", "docs/install.md", "conf/network.json", "conf/agent.json",
		"conf/systemd/dcos-overlay-companion.service", "conf/systemd/dcos-overlay-coordinator.service",
		"conf/tmpfiles.d/dcos-overlay.conf", "man/dcos-overlayctl-doctor.1.gz", "man/dcos-ipam.8.gz", "completions/dcos-overlayctl.bash",
	} {
		if info, err := os.Stat(filepath.Join(tree, path)); err != nil || info.Size() == 0 {
			t.Errorf("the tarball lacks %s: %v", path, err)
		}
	}
	// Mesos takes the directory as it is: nothing but plugins may be in it.
	if got := names(t, filepath.Join(tree, "cni")); !slices.Equal(got, []string{"dcos-ipam", "dcos-overlay", "dcos-overlay-call"}) {
		t.Errorf("cni/ has %q", got)
	}
	var deps []string
	for _, p := range programs() {
		path := filepath.Join(tree, p)
		static(t, path, arch)
		if arch == runtime.GOARCH {
			runs(t, "", path)
		}
		for line := range strings.Lines(command(t, "", "go", "version", "-m", path)) {
			if f := strings.Fields(line); len(f) >= 3 && f[0] == "dep" {
				deps = append(deps, f[1]+" "+f[2])
			}
		}
	}
	if arch == runtime.GOARCH {
		manPages(t, tree)
	}
	slices.Sort(deps)
	sbom(t, filepath.Join(tree, "sbom.cdx.json"), slices.Compact(deps))
	if a, b := read(t, filepath.Join(tree, "sbom.cdx.json")), read(t, filepath.Join(out, name+".cdx.json")); a != b {
		t.Error("the SBOM in the tarball is not the one beside it")
	}
}

// manPages has man show those of the daemons, with each flag that there is.
func manPages(t *testing.T, tree string) {
	t.Helper()
	for _, program := range []string{"dcos-overlay-coordinator", "dcos-overlay-companion"} {
		page := shown(t, tree, program+".8.gz")
		flags := regexp.MustCompile(`(?m)^\s+(--[a-z0-9-]+)`).FindAllStringSubmatch(command(t, "", filepath.Join(tree, "bin", program), "--help"), -1)
		for _, f := range flags {
			if !strings.Contains(page, f[1]) {
				t.Errorf("the manual page of %s lacks %s", program, f[1])
			}
		}
		if len(flags) < 8 || !strings.Contains(page, strings.TrimPrefix(version, "v")) {
			t.Errorf("the manual page of %s is not of %s, or its help has %d flags only", program, version, len(flags))
		}
	}
	if page := shown(t, tree, "dcos-overlay.8.gz"); !strings.Contains(page, "cniVersion") || !strings.Contains(page, "CNI_NETNS") {
		t.Errorf("the manual page of the plugins is\n%s", page)
	}
}

// shown is a manual page as man shows it, without a complaint.
func shown(t *testing.T, tree, page string) string {
	t.Helper()
	return command(t, "", "env", "MANWIDTH=400", "man", "--warnings", "--encoding=UTF-8", "-l", filepath.Join(tree, "man", page))
}

// static fails t unless the program at path is for arch and needs no library.
func static(t *testing.T, path, arch string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	defer f.Close()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want {
		t.Errorf("%s is for %s, not for %s", path, f.Machine, want)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is linked dynamically: it has a segment %s", path, p.Type)
		}
	}
	if f.Section(".symtab") != nil {
		t.Errorf("%s is not stripped", path)
	}
}

// runs asks a program for its version, in the file system at root if that is
// given.
func runs(t *testing.T, root, path string) {
	t.Helper()
	args := []string{path, "--version"}
	if root != "" {
		args = append([]string{"chroot", root}, args...)
	}
	want := filepath.Base(path) + " " + version
	if got := strings.ReplaceAll(strings.TrimSpace(command(t, "", args...)), " version ", " "); got != want {
		t.Errorf("%s --version says %q, not %q", path, got, want)
	}
}

// sbom compares the document at path with the modules, each a path and a
// version, that the programs were linked with.
func sbom(t *testing.T, path string, modules []string) {
	t.Helper()
	var doc struct {
		BOMFormat, SpecVersion string
		Metadata               struct{ Timestamp time.Time }
		Components             []struct {
			Ref                       string `json:"bom-ref"`
			Type, Name, Version, PURL string
		}
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
	}
	if err := json.Unmarshal([]byte(read(t, path)), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.BOMFormat != "CycloneDX" || doc.SpecVersion != "1.6" || doc.Metadata.Timestamp.Unix() != epoch {
		t.Errorf("the SBOM is %s %s of %s", doc.BOMFormat, doc.SpecVersion, doc.Metadata.Timestamp)
	}
	refs := map[string]bool{}
	var libraries, applications []string
	for _, c := range doc.Components {
		if refs[c.Ref] || !strings.HasPrefix(c.PURL, "pkg:golang/") {
			t.Errorf("component %s is there twice, or has no package URL: %q", c.Ref, c.PURL)
		}
		refs[c.Ref] = true
		switch {
		case c.Type == "application":
			applications = append(applications, c.Name)
		case c.Name == "stdlib":
			if want := strings.TrimPrefix(runtime.Version(), "go"); c.Version != want {
				t.Errorf("it says that Go %s has built this, not %s", c.Version, want)
			}
		default:
			libraries = append(libraries, c.Name+" "+c.Version)
		}
	}
	slices.Sort(libraries)
	if !slices.Equal(libraries, modules) || len(modules) < 20 {
		t.Errorf("the SBOM has %q, the programs are linked with %q", libraries, modules)
	}
	if len(applications) != len(programs()) || len(doc.Dependencies) != 1+len(programs()) {
		t.Errorf("it is about the programs %q, with %d lists of dependencies", applications, len(doc.Dependencies))
	}
	for _, d := range doc.Dependencies {
		for _, ref := range d.DependsOn {
			if !refs[ref] {
				t.Errorf("%s depends on %s, which is no component", d.Ref, ref)
			}
		}
	}
}

// command runs a program that must succeed, and returns what it printed.
func command(t *testing.T, dir string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", args, err, out, &stderr)
	}
	return string(out)
}

// names are the files in a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
