package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Document is benchmarks.md in a directory, with its plots and, in
// benchmarks/data.json, the rows that all of them are made of.
type Document struct {
	Dir string
	// Parts are all parts in the order of the table.
	Parts []string
}

// begin and end are around what Update writes; the rest of the document is
// people's.
const begin, end = "<!-- measured: written by make bench -->", "<!-- end of what is measured -->"

// Update puts rows in the places of those of the same parts that were measured
// before, in the data, the table and the plots.
func (d Document) Update(rows []Row, machine string) error {
	dir := filepath.Join(d.Dir, "benchmarks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, "data.json")
	var older []Row
	if data, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(data, &older); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	rows = Merge(d.Parts, older, rows)
	data, err := json.MarshalIndent(rows, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return err
	}
	for name, plot := range map[string]string{"ratios.svg": Ratios(rows), "times.svg": Times(rows)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(plot), 0o644); err != nil {
			return err
		}
	}
	return d.text(rows, machine)
}

func (d Document) text(rows []Row, machine string) error {
	path := filepath.Join(d.Dir, "benchmarks.md")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if len(old) > 0 && (!found || !closed) {
		return fmt.Errorf("%s: it has not the lines %q and %q, between which the table goes", path, begin, end)
	}
	if len(old) == 0 {
		before, after = "# Benchmarks\n\n", "\n"
	}
	middle := fmt.Sprintf("%s\n%s, %s\n\n%s\n![ratios, ours to the others', with the goals](benchmarks/ratios.svg)\n\n![times, in milliseconds](benchmarks/times.svg)\n%s",
		begin, time.Now().UTC().Format(time.DateOnly), machine, Markdown(rows), end)
	return os.WriteFile(path, []byte(before+middle+after), 0o644)
}
