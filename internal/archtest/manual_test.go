package archtest

import (
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// manual is the text of README.md and of all that is in docs, by path.
func manual(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, path := range append(paths, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	return texts
}

// wantInManual fails t for each of words that stands nowhere in the manual.
// What names them, and least is how many of them there must be: fewer mean
// that the test has lost sight of them.
func wantInManual(t *testing.T, what string, least int, words []string) {
	t.Helper()
	if len(words) < least {
		t.Errorf("found %d of the code's %s only: %q", len(words), what, words)
	}
	texts := manual(t)
	for _, w := range words {
		found := false
		for _, text := range texts {
			found = found || mentions(text, w)
		}
		if !found {
			t.Errorf("neither README.md nor docs mention %q, one of the %s", w, what)
		}
	}
}

// mentions tells whether word stands in text, and not as a part of another.
func mentions(text, word string) bool {
	return regexp.MustCompile(`(^|[^\w-])` + regexp.QuoteMeta(word) + `($|[^\w-])`).MatchString(text)
}

// program builds the one in the directory of the module.
func program(t *testing.T, dir string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "program")
	// Root may run this in the repository of somebody else, which git refuses.
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./"+dir)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, out)
	}
	return bin
}

// help is what a program, or a command of it, says that it has: flags, and
// commands below it with their flags.
func help(t *testing.T, bin string, command ...string) (flags, commands []string) {
	t.Helper()
	text, err := exec.Command(bin, append(command, "--help")...).Output()
	if err != nil {
		t.Fatalf("%s %q --help: %v", bin, command, err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\s+(?:-\w, )?(--[a-z0-9-]+)`).FindAllStringSubmatch(string(text), -1) {
		if m[1] != "--help" && !slices.Contains(flags, m[1]) {
			flags = append(flags, m[1])
		}
	}
	_, list, _ := strings.Cut(string(text), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		name := strings.Fields(line)[0]
		// Every shell's completion is the same, and help needs no words.
		if name == "help" || len(command) > 0 && command[0] == "completion" {
			continue
		}
		below := append(slices.Clone(command), name)
		commands = append(commands, strings.Join(below, " "))
		f, c := help(t, bin, below...)
		flags, commands = append(flags, f...), append(commands, c...)
	}
	return flags, commands
}

// TestManualHasTheCommands of the operator's command line.
func TestManualHasTheCommands(t *testing.T) {
	_, commands := help(t, program(t, "ctl"))
	for i := range commands {
		commands[i] = "dcos-overlayctl " + commands[i]
	}
	wantInManual(t, "commands of dcos-overlayctl", 15, commands)
}

// TestManualHasTheFlags, and no flag that there is not.
func TestManualHasTheFlags(t *testing.T) {
	var all []string
	for _, dir := range []string{"coordinator", "companion", "ctl"} {
		has, _ := help(t, program(t, dir))
		wantInManual(t, "flags of the "+dir, 5, has)
		all = append(all, has...)
	}
	row := regexp.MustCompile("(?m)^\\| `(--[a-z0-9-]+)")
	for path, text := range manual(t) {
		for _, m := range row.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(all, m[1]) {
				t.Errorf("%s has a row about %s, which no program has", path, m[1])
			}
		}
	}
}

// TestManualHasTheFields of agent.json and of the network's configuration.
func TestManualHasTheFields(t *testing.T) {
	_, err := agentconf.Parse([]byte(`{"nonsense": 1}`))
	if err == nil {
		t.Fatal("an unknown field of agent.json is no error")
	}
	// The error names all that there are.
	_, known, ok := strings.Cut(err.Error(), "there are ")
	if !ok {
		t.Fatalf("the error no longer lists the fields: %v", err)
	}
	wantInManual(t, "fields of agent.json", 10, strings.Split(known, ", "))
	wantInManual(t, "fields of network_config", 5, jsonFields(reflect.TypeFor[lease.NetworkConfig]()))
	wantInManual(t, "fields of the network's configuration", 5, jsonFields(reflect.TypeFor[network.Network]()))
	wantInManual(t, "fields of an overlay", 6, jsonFields(reflect.TypeFor[network.Overlay]()))
}

func jsonFields(typ reflect.Type) []string {
	var out []string
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		out = append(out, name)
	}
	return out
}

// TestManualHasTheCNIFields: package cniconf keeps the JSON to itself, so its
// tags are read from the source.
func TestManualHasTheCNIFields(t *testing.T) {
	var fields []string
	for _, f := range sourceOf(t, "internal/cniconf") {
		ast.Inspect(f.File, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok && field.Tag != nil {
				tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`"))
				name, _, _ := strings.Cut(tag.Get("json"), ",")
				fields = append(fields, name)
			}
			return true
		})
	}
	wantInManual(t, "CNI configuration's fields", 12, fields)
}

// TestManualHasTheCodes that a failed ADD or DEL can have.
func TestManualHasTheCodes(t *testing.T) {
	var codes []string
	for name, value := range constants(t, "internal/cnierror", token.INT) {
		if strings.HasPrefix(name, "Code") {
			codes = append(codes, value)
		}
	}
	wantInManual(t, "CNI error codes", 5, codes)
}

// TestManualHasTheAPI: paths, events and error codes.
func TestManualHasTheAPI(t *testing.T) {
	var words []string
	for _, value := range constants(t, "internal/api", token.STRING) {
		text, err := strconv.Unquote(value)
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, text)
	}
	wantInManual(t, "words of the HTTP API", 20, words)
}

// constants are the literal constants of a package, by name.
func constants(t *testing.T, rel string, kind token.Token) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, f := range sourceOf(t, rel) {
		for _, d := range f.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, s := range group.Specs {
				spec := s.(*ast.ValueSpec)
				for i, v := range spec.Values {
					if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == kind {
						found[spec.Names[i].Name] = lit.Value
					}
				}
			}
		}
	}
	return found
}

func sourceOf(t *testing.T, rel string) []file {
	t.Helper()
	for _, p := range list(t, "./"+rel) {
		return parse(t, p, p.GoFiles)
	}
	t.Fatalf("there is no package %s", rel)
	return nil
}

// TestManualLinks: what the manual points to is there, sections too.
func TestManualLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	for path, text := range manual(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := path
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(path), m[1])
			}
			to, err := os.ReadFile(target)
			if err != nil {
				t.Errorf("%s points to %s: %v", path, m[1], err)
			} else if m[2] != "" && !slices.Contains(sections(string(to)), m[2]) {
				t.Errorf("%s points to %s, which has no section %q", path, target, m[2])
			}
		}
	}
}

// sections are the names by which the sections of a text in Markdown are
// linked to: in lower case, without punctuation, with dashes for spaces.
func sections(text string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^\p{L}\d\-_ ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(plain, " ", "-"))
	}
	return names
}

// TestManualTargets: every make target that the manual tells to make is one.
func TestManualTargets(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for path, text := range manual(t) {
		for _, m := range regexp.MustCompile("(?m)(?:^|`|sudo )make ([a-z][a-z-]*)").FindAllStringSubmatch(text, -1) {
			told++
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s says make %s, which the Makefile does not have", path, m[1])
			}
		}
	}
	if told == 0 {
		t.Error("the manual tells to make nothing: this test looks for the wrong words")
	}
}
