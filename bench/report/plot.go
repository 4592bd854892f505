package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A plot is a row of bars below another, in the colours of the reader's choice
// of light or dark. Measures are in pixels.
const (
	plotWidth = 900
	labelAt   = 390
	barsAt    = 400
	barsWidth = 380
	lineHigh  = 22
	headHigh  = 44
)

const style = `<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 14px; font-weight: 600 }
.faint { fill: #6e7781 }
.ours { fill: #2f81b7 } .theirs { fill: #b08a3c } .missed { fill: #c4554d }
.line { stroke: #6e7781; stroke-width: 1 } .goal { stroke: #24292f; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
 text { fill: #d8dee4 } .faint { fill: #9198a1 } .goal { stroke: #f0f6fc } .line { stroke: #9198a1 }
 .ours { fill: #58a6d6 } .theirs { fill: #cfa75a } .missed { fill: #e5776f }
}
</style>
`

type canvas struct {
	strings.Builder
	y float64
}

func (c *canvas) text(x float64, anchor, class, text string) {
	fmt.Fprintf(c, "<text x=\"%.0f\" y=\"%.1f\" text-anchor=%q class=%q>%s</text>\n", x, c.y+lineHigh*0.68, anchor, class, html.EscapeString(text))
}

func (c *canvas) bar(x, width float64, class string) {
	fmt.Fprintf(c, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" class=%q/>\n", x, c.y+4, max(width, 1), lineHigh-8, class)
}

// whisker shows quartiles.
func (c *canvas) whisker(from, to float64) {
	y := c.y + lineHigh/2
	fmt.Fprintf(c, "<path d=\"M%.1f %.1fH%.1fM%.1f %.1fv6M%.1f %.1fv6\" class=\"line\" fill=\"none\"/>\n", from, y, to, from, y-3, to, y-3)
}

func (c *canvas) finish(title string, note string) string {
	head := fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" viewBox=\"0 0 %[1]d %.0[2]f\" role=\"img\" aria-label=%q>\n%s",
		plotWidth, c.y+8, title, style)
	head += fmt.Sprintf("<text x=\"8\" y=\"18\" class=\"title\">%s</text><text x=\"8\" y=\"35\" class=\"faint\">%s</text>\n", html.EscapeString(title), html.EscapeString(note))
	return head + c.String() + "</svg>\n"
}

// Ratios plots each ratio that has a goal, on a scale on which all goals are
// one line: how far of it, or beyond, each is.
func Ratios(rows []Row) string {
	c := &canvas{y: headHigh}
	// Twice the goal is as far as the scale goes.
	const goalAt = barsAt + barsWidth/2
	for _, r := range rows {
		if r.Goal == 0 || r.NotMeasured != "" {
			continue
		}
		part := func(ratio float64) float64 {
			share := ratio / r.Goal
			if r.AtLeast {
				share = r.Goal / max(ratio, 1e-9)
			}
			return min(share, 2) * barsWidth / 2
		}
		class := "ours"
		if !r.Met() {
			class = "missed"
		}
		c.text(labelAt, "end", "", short(r.What)+" / "+short(r.Against))
		c.bar(barsAt, part(r.OfMedians()), class)
		from, to := part(r.Ratio.Q1), part(r.Ratio.Q3)
		c.whisker(barsAt+min(from, to), barsAt+max(from, to))
		c.text(plotWidth-8, "end", "", number(r.OfMedians())+"  ("+r.columns()[7]+")")
		c.y += lineHigh
	}
	fmt.Fprintf(c, "<path d=\"M%d %dV%.1f\" class=\"goal\"/>\n", goalAt, headHigh-4, c.y)
	return c.finish("Ours against the others': ratio of the medians", "the line is each row's goal, shorter is better, red is a goal missed; with quartiles of the rounds' ratios")
}

// short leaves out what only the table has room for.
func short(s string) string {
	s, _, _ = strings.Cut(s, " (")
	s = strings.ReplaceAll(s, ", 64 clients", "")
	return strings.TrimSuffix(s, ", container to container across hosts")
}

// Times plots the medians of all that is measured in milliseconds.
func Times(rows []Row) string {
	c := &canvas{y: headHigh}
	most := 1.0
	for _, r := range rows {
		if r.Unit == "ms" {
			most = max(most, r.Ours.Q3, r.Peer.Q3)
		}
	}
	// Times of one and of a thousand milliseconds stand in one plot.
	scale := func(v float64) float64 { return max(math.Log10(max(v, 1)), 0) / math.Log10(most) * barsWidth }
	previous := ""
	for _, r := range rows {
		if r.Unit != "ms" || r.NotMeasured != "" {
			continue
		}
		if r.What != previous {
			c.text(labelAt, "end", "", short(r.What))
			c.measure(r.Ours.Median, r.Ours.Q1, r.Ours.Q3, "ours", scale)
			previous = r.What
		}
		c.text(labelAt, "end", "faint", short(r.Against))
		c.measure(r.Peer.Median, r.Peer.Q1, r.Peer.Q3, "theirs", scale)
	}
	return c.finish("Times in milliseconds", "on a logarithmic scale from 1 ms; shorter is better; blue is ours; with quartiles")
}

func (c *canvas) measure(median, q1, q3 float64, class string, scale func(float64) float64) {
	c.bar(barsAt, scale(median), class)
	c.whisker(barsAt+scale(q1), barsAt+scale(q3))
	c.text(plotWidth-8, "end", "", number(median))
	c.y += lineHigh
}
