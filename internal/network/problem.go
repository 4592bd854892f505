package network

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Path names the field, as in overlays[1].subnet6; it is empty for the
	// whole.
	Path string
	// Line and Column count from 1; they are 0 where the configuration did
	// not come from a file.
	Line, Column int
	Message      string
}

// String is p with its place: line 7, overlays[1].prefix: 33 is longer than …
func (p Problem) String() string {
	var place []string
	if p.Line > 0 {
		place = append(place, fmt.Sprintf("line %d", p.Line))
	}
	if p.Path != "" {
		place = append(place, p.Path)
	}
	if len(place) == 0 {
		return p.Message
	}
	return strings.Join(place, ", ") + ": " + p.Message
}

// Problems are all that is wrong with a configuration. It is an error; none
// means a length of 0, so a Problems is to be looked at with len and never
// put into an error variable unseen.
type Problems []Problem

// Error lists every problem, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Sort puts ps into the order of the file. Problems without a line, and those
// of one place, stay in the order that they were found in.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// add records a problem of the field at path.
func (ps *Problems) add(path, format string, args ...any) {
	*ps = append(*ps, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}
