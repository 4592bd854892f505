// Package report shows measurements to people: a table, a document, plots.
package report

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dcos/dcos-overlay/bench/stat"
)

// Row is one comparison.
type Row struct {
	// Part is the name of the measurement that it is of.
	Part    string       `json:"part"`
	What    string       `json:"what"`
	Against string       `json:"against"`
	Ours    stat.Summary `json:"ours"`
	Peer    stat.Summary `json:"peer"`
	// Unit is that of Ours and Peer.
	Unit string `json:"unit"`
	// Ratio sums up ours divided by the peer's, round by round.
	Ratio stat.Summary `json:"ratio"`
	// Goal is what the ratio of the medians shall be at most, or at least if
	// AtLeast is set; 0 where there is none.
	Goal    float64 `json:"goal,omitempty"`
	AtLeast bool    `json:"at_least,omitempty"`
	// NotMeasured is why there are no figures; empty where there are.
	NotMeasured string `json:"not_measured,omitempty"`
}

// OfMedians is the ratio that counts.
func (r Row) OfMedians() float64 {
	if r.Peer.Median == 0 {
		return 0
	}
	return r.Ours.Median / r.Peer.Median
}

// Met tells whether the goal is reached.
func (r Row) Met() bool {
	if r.AtLeast {
		return r.OfMedians() >= r.Goal
	}
	return r.OfMedians() <= r.Goal
}

// columns are the words of a row.
func (r Row) columns() []string {
	if r.NotMeasured != "" {
		return []string{r.What, "", r.Against, "", "", "", "0", "", "not measured: " + r.NotMeasured}
	}
	goal, met := "", ""
	if r.Goal != 0 {
		goal, met = "≤ "+number(r.Goal), "missed"
		if r.AtLeast {
			goal = "≥ " + number(r.Goal)
		}
		if r.Met() {
			met = "met"
		}
	}
	return []string{
		r.What, number(r.Ours.Median) + " " + r.Unit, r.Against, number(r.Peer.Median) + " " + r.Unit,
		number(r.OfMedians()), number(r.Ratio.Q1) + "–" + number(r.Ratio.Q3), fmt.Sprint(min(r.Ours.N, r.Peer.N)), goal, met,
	}
}

func head() []string {
	return []string{"what", "ours", "against", "theirs", "ratio", "quartiles", "runs", "goal", ""}
}

// number has three digits that count.
func number(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 0.1:
		return fmt.Sprintf("%.3f", f)
	case f < 10:
		return fmt.Sprintf("%.2f", f)
	case f < 100:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

// Table is rows for a terminal.
func Table(rows []Row) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, line := range lines(rows) {
		// A strings.Builder never fails.
		_, _ = fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	_ = w.Flush()
	return out.String()
}

// Markdown is rows for a document.
func Markdown(rows []Row) string {
	var out strings.Builder
	for i, line := range lines(rows) {
		out.WriteString("| " + strings.Join(line, " | ") + " |\n")
		if i == 0 {
			out.WriteString(strings.Repeat("| --- ", len(line)) + "|\n")
		}
	}
	return out.String()
}

func lines(rows []Row) [][]string {
	out := [][]string{head()}
	for _, r := range rows {
		out = append(out, r.columns())
	}
	return out
}

// Merge puts fresh rows in the place of older ones of the same parts, in the
// order of parts.
func Merge(parts []string, older, fresh []Row) []Row {
	var out []Row
	for _, p := range parts {
		of := func(r Row) bool { return r.Part == p }
		from := older
		if slices.ContainsFunc(fresh, of) {
			from = fresh
		}
		for _, r := range from {
			if of(r) {
				out = append(out, r)
			}
		}
	}
	return out
}
