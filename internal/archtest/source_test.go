package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// file is one parsed source file.
type file struct {
	*ast.File
	fset *token.FileSet
	// rel is its path inside the module.
	rel string
}

func parse(t *testing.T, p pkg, names []string) []file {
	t.Helper()
	var files []file
	for _, name := range names {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{f, fset, filepath.Join(p.rel(), name)})
	}
	return files
}

// at is where n begins, for messages.
func (f file) at(n ast.Node) string {
	pos := f.fset.Position(n.Pos())
	pos.Filename = f.rel
	return pos.String()
}

// use is a name of another package that a file uses, as in net.IP.
type use struct{ at, name string }

// uses are those of the standard packages that are named.
func (f file) uses(packages ...string) []use {
	var out []use
	ast.Inspect(f.File, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && slices.Contains(packages, x.Name) && f.imports(x.Name) {
			out = append(out, use{f.at(s), x.Name + "." + s.Sel.Name})
		}
		return true
	})
	return out
}

func (f file) imports(path string) bool {
	return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"`+path+`"` })
}

func isOne(s string, all []string) bool { return slices.Contains(all, s) }

// isLibrary tells whether an import path is outside the standard library.
func isLibrary(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".")
}

// TestPackageComments: a package says in one place what it is.
func TestPackageComments(t *testing.T) {
	for _, p := range ours(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		names := p.GoFiles
		if len(names) == 0 {
			names = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		var found []string
		for _, f := range parse(t, p, names) {
			if f.Doc == nil {
				continue
			}
			found = append(found, f.rel)
			if text := f.Doc.Text(); !strings.HasPrefix(text, want) {
				first, _, _ := strings.Cut(text, "\n")
				t.Errorf("%s: the package comment begins with %q, not with %q", f.rel, first, want)
			}
		}
		if len(found) != 1 {
			t.Errorf("%s has %d package comments, not one: %q", p.rel(), len(found), found)
		}
	}
}

// TestExportedNamesAreDocumented: whoever uses a package need not read its
// code. Methods that only fulfil a well-known interface need no words.
func TestExportedNamesAreDocumented(t *testing.T) {
	checked := 0
	for _, p := range ours(t) {
		if p.Name == "main" {
			continue
		}
		for _, f := range parse(t, p, p.GoFiles) {
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if exportedFunc(d) {
						checked++
						f.checkDoc(t, d, d.Name.Name, d.Doc)
					}
				case *ast.GenDecl:
					checked += f.checkGroup(t, d)
				}
			}
		}
	}
	if checked < 200 {
		t.Errorf("only %d exported names were found: this test looks past them", checked)
	}
}

// exportedFunc tells whether a caller elsewhere may see d and would want to
// read on it.
func exportedFunc(d *ast.FuncDecl) bool {
	if !d.Name.IsExported() {
		return false
	}
	if d.Recv == nil {
		return true
	}
	known := []string{
		"Error", "String", "Unwrap", "Len", "Less", "Swap", "Push", "Pop", "Read", "Write", "Close",
		"MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON",
	}
	receiver := d.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	name, ok := receiver.(*ast.Ident)
	return ok && name.IsExported() && !isOne(d.Name.Name, known)
}

// checkDoc wants a comment in which the name stands first, perhaps after an
// article or as one of two that are explained together.
func (f file) checkDoc(t *testing.T, n ast.Node, name string, doc *ast.CommentGroup) {
	t.Helper()
	if doc == nil {
		t.Errorf("%s: %s has no comment", f.at(n), name)
		return
	}
	begin := regexp.MustCompile(`^(?:(?:A|An|The) )?(?:\w+ and |\w+, \w+ and )?` + regexp.QuoteMeta(name) + `\b`)
	if !begin.MatchString(doc.Text()) {
		first, _, _ := strings.Cut(doc.Text(), "\n")
		t.Errorf("%s: the comment of %s begins with %q, not with the name", f.at(n), name, first)
	}
}

// checkGroup checks types, constants and variables, and counts them. A group
// of constants or variables may be explained as one.
func (f file) checkGroup(t *testing.T, d *ast.GenDecl) (checked int) {
	t.Helper()
	grouped := false
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() {
				checked++
				doc := s.Doc
				if doc == nil {
					doc = d.Doc
				}
				f.checkDoc(t, s, s.Name.Name, doc)
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if !name.IsExported() {
					continue
				}
				checked++
				// One comment may stand above several lines of a group, and the
				// values of an enumeration are explained at its type.
				if s.Doc == nil && s.Comment == nil && d.Doc == nil && !grouped && !enumerated(s) {
					t.Errorf("%s: %s has no comment", f.at(s), name.Name)
				}
			}
			grouped = grouped || s.Doc != nil
		}
	}
	return checked
}

// enumerated tells whether s is a value of a type of its package.
func enumerated(s *ast.ValueSpec) bool {
	typ, ok := s.Type.(*ast.Ident)
	return ok && typ.IsExported()
}

// TestNothingRunsAtImport: a program starts in main, and in no order that the
// linker decides.
func TestNothingRunsAtImport(t *testing.T) {
	for _, p := range ours(t) {
		for _, f := range parse(t, p, slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles)) {
			for _, d := range f.Decls {
				if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: there is an init function: call it from where it is needed", f.at(d))
				}
			}
		}
	}
}
