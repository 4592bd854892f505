// Package archtest holds the rules about structure as tests: who may import
// whom, what every source file has, and what the manuals must mention. It has
// nothing to import.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/dcos/dcos-overlay"
	// root is the module's directory, seen from this one.
	root = "../.."
)

// pkg is what go list says of a package.
type pkg struct {
	ImportPath, Name, Dir              string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports                            []string
}

// rel is the package's path inside the module; "" is the module's root.
func (p pkg) rel() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// part is the first element of rel, such as plugins or internal.
func (p pkg) part() string {
	part, _, _ := strings.Cut(p.rel(), "/")
	return part
}

// list runs go list at the module's root.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	visit(t)
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, &stderr)
	}
	var pkgs []pkg
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// visit opens every directory of the module. The go command takes a test's
// last result for its next as long as what the test itself has opened is the
// same, and does not see what the programs open that it runs.
func visit(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ours are all packages of the module.
func ours(t *testing.T) []pkg {
	t.Helper()
	pkgs := list(t, "./...")
	if len(pkgs) < 20 {
		t.Fatalf("go list found %d packages only", len(pkgs))
	}
	return pkgs
}

// graph are packages and all that they depend on, by import path.
type graph map[string]pkg

func depsOf(t *testing.T, pattern string) (roots []pkg, g graph) {
	t.Helper()
	g = graph{}
	for _, p := range list(t, "-deps", pattern) {
		g[p.ImportPath] = p
	}
	return list(t, pattern), g
}

// chain is one way of imports from a package to the first one that bad tells
// of; nil when there is none.
func (g graph) chain(from string, bad func(string) bool) []string {
	seen := map[string]bool{}
	var walk func(path string) []string
	walk = func(path string) []string {
		if bad(path) {
			return []string{path}
		}
		if seen[path] {
			return nil
		}
		seen[path] = true
		for _, next := range g[path].Imports {
			if rest := walk(next); rest != nil {
				return append([]string{path}, rest...)
			}
		}
		return nil
	}
	return walk(from)
}

// under tells whether path is one of trees or below one.
func under(path string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		return path == tree || strings.HasPrefix(path, tree+"/")
	})
}

// arrows shows a chain of imports.
func arrows(chain []string) string {
	short := make([]string, len(chain))
	for i, c := range chain {
		short[i] = strings.TrimPrefix(c, module+"/")
	}
	return strings.Join(short, " -> ")
}

// within says where in the module an import path is.
func within(path string) (rel string, ok bool) {
	rel, ok = strings.CutPrefix(path, module+"/")
	return rel, ok
}

func quoted(words []string) string { return fmt.Sprintf("%q", words) }
