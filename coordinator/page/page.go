// Package page is the web page of the coordinator: files that are part of the
// program, and the rules under which browsers show them. What it shows it asks
// by the calls that everybody has.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
)

//go:embed assets
var assets embed.FS

// Prefix is where the files are that the page consists of.
const Prefix = "/page/"

// policy lets the page load from this coordinator only, and nothing that is
// written into it: a name or an error text that looks like HTML stays text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// Page answers with the page and its files.
type Page struct {
	files map[string]file // by name
}

type file struct {
	body              []byte
	contentType, etag string
}

// New makes a Page of the files that are part of the program.
func New() *Page {
	p := &Page{files: map[string]file{}}
	entries, err := assets.ReadDir("assets")
	for _, e := range entries {
		var body []byte
		if body, err = assets.ReadFile(path.Join("assets", e.Name())); err != nil {
			break
		}
		sum := sha256.Sum256(body)
		p.files[e.Name()] = file{
			body:        body,
			contentType: contentType(e.Name()),
			etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
		}
	}
	if err != nil {
		// They are in memory since the program was linked: there is no way.
		panic(fmt.Sprintf("read the page's files: %v", err))
	}
	return p
}

// contentType does not ask the machine's own tables, which may say otherwise.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/octet-stream"
}

// Wanted tells whether r comes from a browser that would show the page, not
// from a program.
func Wanted(r *http.Request) bool {
	return slices.ContainsFunc(strings.Split(r.Header.Get("Accept"), ","), func(accepted string) bool {
		kind, _, err := mime.ParseMediaType(accepted)
		return err == nil && kind == "text/html"
	})
}

// ServeIndex answers with the page itself.
func (p *Page) ServeIndex(w http.ResponseWriter, r *http.Request) {
	p.serve(w, r, p.files["index.html"])
}

// ServeFile answers with the file of that name, if there is one.
func (p *Page) ServeFile(w http.ResponseWriter, r *http.Request, name string) (found bool) {
	f, found := p.files[name]
	if found {
		p.serve(w, r, f)
	}
	return found
}

func (p *Page) serve(w http.ResponseWriter, r *http.Request, f file) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	// The files of another version never go together with these.
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	if slices.Contains(strings.Split(strings.ReplaceAll(r.Header.Get("If-None-Match"), " ", ""), ","), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	// A caller that does not take its answer has gone away.
	_, _ = w.Write(f.body)
}
