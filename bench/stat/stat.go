// Package stat sums up repeated measurements.
package stat

import "slices"

// Sample are measurements of one thing, in the order in which they were made.
type Sample []float64

// Summary is a sample in a few numbers.
type Summary struct {
	N int `json:"n"`
	// Median is between the quartiles Q1 and Q3; all are in the sample's unit.
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
}

// Sum sums s up; the zero Summary is that of no measurements.
func (s Sample) Sum() Summary {
	sorted := slices.Sorted(slices.Values(s))
	return Summary{N: len(s), Median: quantile(sorted, 0.5), Q1: quantile(sorted, 0.25), Q3: quantile(sorted, 0.75)}
}

// quantile interpolates between the two nearest of sorted.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 == len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// Ratios divides what was measured in the same round.
func Ratios(a, b Sample) Sample {
	out := make(Sample, min(len(a), len(b)))
	for i := range out {
		out[i] = a[i] / b[i]
	}
	return out
}
