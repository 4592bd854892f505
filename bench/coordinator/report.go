package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// report is what was measured.
type report struct {
	When  time.Time `json:"when"`
	Go    string    `json:"go"`
	CPUs  int       `json:"cpus"`
	Quick bool      `json:"quick"`
	Rows  []row     `json:"rows"`
}

// row is one figure. Agents is how many of them held a lease then.
type row struct {
	Name   string  `json:"name"`
	Agents int     `json:"agents,omitempty"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	// Low and High are the least and the greatest of Samples values, of which
	// Value is the median.
	Low     float64 `json:"low,omitempty"`
	High    float64 `json:"high,omitempty"`
	Samples int     `json:"samples,omitempty"`
	// Values are all of them, in the order in which they were measured.
	Values []float64 `json:"values,omitempty"`
	Note   string    `json:"note,omitempty"`
}

func newReport(quick bool) *report {
	return &report{When: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), CPUs: runtime.NumCPU(), Quick: quick}
}

func (r *report) add(rows ...row) { r.Rows = append(r.Rows, rows...) }

// median makes a row of several values.
func median(name string, agents int, unit string, values []float64) row {
	sorted := slices.Sorted(slices.Values(values))
	return row{
		Name: name, Agents: agents, Unit: unit, Samples: len(values), Values: values,
		Value: quantile(sorted, 0.5), Low: sorted[0], High: sorted[len(sorted)-1],
	}
}

// quantile is the value that part q of the sorted ones are not greater than.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func (r *report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	// What can't be printed is seen not to be there.
	_, _ = fmt.Fprintln(t, "what\tagents\tvalue\tunit\tspread\tnote")
	for _, x := range r.Rows {
		agents, spread := "", ""
		if x.Agents > 0 {
			agents = strconv.Itoa(x.Agents)
		}
		if x.Samples > 1 {
			spread = fmt.Sprintf("%s to %s of %d", figure(x.Low), figure(x.High), x.Samples)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", x.Name, agents, figure(x.Value), x.Unit, spread, x.Note)
	}
	_ = t.Flush()
}

// figure writes three significant digits at least, and whole numbers whole.
func figure(v float64) string {
	if v >= 100 || v == math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func (r *report) save(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the figures: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	return nil
}
