// Command sbom prints what programs are made of, as CycloneDX in JSON: the Go
// toolchain and each module, by what the linker wrote into the programs.
package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bom is a document of CycloneDX 1.6, as far as it is needed here:
// https://cyclonedx.org/docs/1.6/json/.
type bom struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp time.Time `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// standard is how package URLs call the Go toolchain and its library.
const standard = "stdlib"

func main() {
	version := flag.String("version", "", "the version of the programs")
	flag.Parse()
	if err := run(os.Stdout, *version, os.Getenv("SOURCE_DATE_EPOCH"), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// run writes the document of the programs at paths. epoch is its date, in
// seconds since 1970.
func run(w io.Writer, version, epoch string, paths []string) error {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH is %q: it must be a number of seconds", epoch)
	}
	if version == "" || len(paths) == 0 {
		return fmt.Errorf("give --version and programs")
	}
	product := debug.Module{Path: "github.com/dcos/dcos-overlay", Version: version}
	doc := bom{
		Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{Timestamp: time.Unix(seconds, 0).UTC(), Component: library(product, "application")},
	}
	whole := dependency{Ref: doc.Metadata.Component.Ref}
	modules := map[string]component{}
	for _, path := range paths {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read what %s is built of: %w", path, err)
		}
		program := component{
			Type: "application", Name: filepath.Base(path), Version: version,
			PURL: purl(product) + "#" + strings.TrimPrefix(info.Path, product.Path+"/"),
		}
		program.Ref = program.PURL
		for _, s := range info.Settings {
			if slices.Contains([]string{"GOOS", "GOARCH", "CGO_ENABLED"}, s.Key) {
				program.Properties = append(program.Properties, property{"go:" + s.Key, s.Value})
			}
		}
		uses := dependency{Ref: program.Ref}
		for _, m := range append(info.Deps, &debug.Module{Path: standard, Version: strings.TrimPrefix(info.GoVersion, "go")}) {
			c := library(*cmp.Or(m.Replace, m), "library")
			modules[c.Ref] = c
			uses.DependsOn = append(uses.DependsOn, c.Ref)
		}
		slices.Sort(uses.DependsOn)
		whole.DependsOn = append(whole.DependsOn, program.Ref)
		doc.Components = append(doc.Components, program)
		doc.Dependencies = append(doc.Dependencies, uses)
	}
	for _, ref := range slices.Sorted(maps.Keys(modules)) {
		doc.Components = append(doc.Components, modules[ref])
	}
	doc.Dependencies = append([]dependency{whole}, doc.Dependencies...)
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(doc)
}

// library is a module; h1 is the sum that go.sum has of it.
func library(m debug.Module, kind string) component {
	c := component{Ref: purl(m), Type: kind, Name: m.Path, Version: m.Version, PURL: purl(m)}
	if m.Sum != "" {
		c.Properties = []property{{"go:sum", m.Sum}}
	}
	return c
}

// purl is the package URL: https://github.com/package-url/purl-spec. A + is the
// one character of module versions that must be escaped.
func purl(m debug.Module) string {
	return "pkg:golang/" + strings.ToLower(m.Path) + "@" + strings.ReplaceAll(m.Version, "+", "%2B")
}
