package main

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/dcos/dcos-overlay/ctl/output"
	"github.com/dcos/dcos-overlay/internal/api"
)

// overlayState is how far an overlay is in its life.
func overlayState(o api.Overlay) output.Cell {
	apart := ""
	if o.Isolated {
		apart = ", isolated"
	}
	switch {
	case o.Deleting:
		return output.Cell{Text: "being deleted", Colour: output.Odd}
	case !o.IsEnabled():
		return output.Cell{Text: "disabled" + apart, Colour: output.Odd}
	}
	return output.Cell{Text: "enabled" + apart, Colour: output.Good}
}

// space is an address range and the length of one agent's part of it.
func space(p netip.Prefix, bits int) string {
	if !p.IsValid() {
		return ""
	}
	return fmt.Sprintf("%s in /%d", p, bits)
}

// saturated is a + b, at most the largest number that there is.
func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// endless is from where on a count of free addresses is but a bound.
const endless = 1 << 40

func many(n int64) string {
	if n >= endless {
		return "plenty"
	}
	return fmt.Sprint(n)
}

func prefixes(ps []netip.Prefix) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}

// plural is n things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
