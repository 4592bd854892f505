package server

import (
	"net/http"
	"strings"
)

// known tells whether the caller has what bears tag already: as it is or
// packed, for they say the same.
func known(r *http.Request, tag string) bool {
	for _, value := range r.Header.Values("If-None-Match") {
		for have := range strings.SplitSeq(value, ",") {
			have = strings.TrimPrefix(strings.TrimSpace(have), "W/")
			if have == "*" || have == quoted(tag) || have == quoted(tag+packedTag) {
				return true
			}
		}
	}
	return false
}

func quoted(tag string) string { return `"` + tag + `"` }

// takesGzip tells whether the caller wants the answer packed.
func takesGzip(r *http.Request) bool {
	for _, value := range r.Header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(value, ",") {
			name, weight, _ := strings.Cut(coding, ";")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") {
				q, zero := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=0")
				return !zero || strings.Trim(q, ".0") != ""
			}
		}
	}
	return false
}
