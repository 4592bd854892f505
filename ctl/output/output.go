// Package output prints what a command found: as a table for people, as JSON
// or YAML for programs.
package output

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Format is how a command prints.
type Format string

// The formats that there are.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Printer prints in one format.
type Printer struct {
	W      io.Writer
	Format Format
	// Colour allows it in tables.
	Colour bool
}

// Print prints v for programs, or calls rows for people. v is anything that
// encoding/json takes; YAML has the same names as JSON.
func (p Printer) Print(v any, rows func(*Rows)) error {
	switch p.Format {
	case JSON:
		enc := json.NewEncoder(p.W)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case YAML:
		return p.yaml(v)
	}
	r := &Rows{colour: p.Colour}
	rows(r)
	return r.flush(p.W)
}

// Line prints v, one of many, as soon as it is known: a line of JSON, a YAML
// document, or text.
func (p Printer) Line(v any, text string) error {
	switch p.Format {
	case JSON:
		return json.NewEncoder(p.W).Encode(v)
	case YAML:
		if _, err := io.WriteString(p.W, "---\n"); err != nil {
			return err
		}
		return p.yaml(v)
	}
	_, err := fmt.Fprintln(p.W, text)
	return err
}

// yaml goes by way of JSON, so that both have the same names and order.
func (p Printer) yaml(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(data, &node); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	block(&node)
	enc := yaml.NewEncoder(p.W)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	return enc.Close()
}

// block takes JSON's braces and quotes from n, where YAML does without.
func block(n *yaml.Node) {
	if len(n.Content) > 0 {
		n.Style = 0
	}
	if n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, c := range n.Content {
		block(c)
	}
}

// Colour is what a cell has.
type Colour string

// The colours, as escape sequences of ECMA-48.
const (
	Plain  Colour = ""
	Good   Colour = "\x1b[32m"
	Odd    Colour = "\x1b[33m"
	Bad    Colour = "\x1b[31m"
	Strong Colour = "\x1b[1m"
	reset         = "\x1b[0m"
)

// Cell is one field of a table.
type Cell struct {
	Text   string
	Colour Colour
}

// Rows is a table that is being filled. Its columns are as wide as they need.
type Rows struct {
	colour bool
	rows   [][]Cell
}

// Head begins a table, after an empty line if another one stands before it.
func (r *Rows) Head(names ...string) {
	if len(r.rows) > 0 {
		r.rows = append(r.rows, nil)
	}
	row := make([]Cell, len(names))
	for i, n := range names {
		row[i] = Cell{Text: strings.ToUpper(n), Colour: Strong}
	}
	r.rows = append(r.rows, row)
}

// Add adds a row of texts and Cells; other values are printed as fmt does.
func (r *Rows) Add(values ...any) {
	row := make([]Cell, len(values))
	for i, v := range values {
		if c, ok := v.(Cell); ok {
			row[i] = c
		} else {
			row[i] = Cell{Text: fmt.Sprint(v)}
		}
		if row[i].Text == "" {
			row[i].Text = "-"
		}
	}
	r.rows = append(r.rows, row)
}

// flush prints all. Tables with an empty line between them have columns of
// their own.
func (r *Rows) flush(w io.Writer) error {
	var out strings.Builder
	for begin := 0; begin < len(r.rows); {
		end := begin
		for end < len(r.rows) && r.rows[end] != nil {
			end++
		}
		r.write(&out, r.rows[begin:end])
		if end < len(r.rows) {
			out.WriteByte('\n')
		}
		begin = end + 1
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (r *Rows) write(out *strings.Builder, rows [][]Cell) {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Text))
		}
	}
	for _, row := range rows {
		for i, c := range row {
			text := c.Text
			if r.colour && c.Colour != Plain {
				text = string(c.Colour) + text + reset
			}
			out.WriteString(text)
			if i < len(row)-1 {
				out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.Text)+2))
			}
		}
		out.WriteByte('\n')
	}
}
