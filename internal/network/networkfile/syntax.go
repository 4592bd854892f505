package networkfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/dcos/dcos-overlay/internal/network"
)

// document is the one YAML document that data has to be. JSON is YAML.
func document(data []byte) (*yaml.Node, *network.Problem) {
	if p := unreadable(data); p != nil {
		return nil, p
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, &network.Problem{Message: "there is no configuration here: the file is empty"}
	} else if err != nil {
		return nil, syntaxProblem(data, err)
	}
	if err := dec.Decode(&more); err == nil {
		return nil, &network.Problem{Line: more.Line, Column: more.Column, Message: "a second document begins here; only one is read"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxProblem(data, err)
	}
	return doc.Content[0], nil
}

// unreadable finds what is no text at all. The YAML library refuses it too,
// but does not say where it is.
func unreadable(data []byte) *network.Problem {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		control := r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f
		if control || r == utf8.RuneError && size == 1 {
			return problemAt(data, i, "the byte 0x"+strconv.FormatUint(uint64(data[i]), 16)+" is not text; save the file as plain UTF-8")
		}
		i += size
	}
	return nil
}

// syntaxProblem gives err, the YAML library's, a place.
func syntaxProblem(data []byte, err error) *network.Problem {
	var jsonErr *json.SyntaxError
	if looksLikeJSON(data) && errors.As(json.Unmarshal(data, new(any)), &jsonErr) {
		// The offset is of the byte after the one that is wrong.
		return problemAt(data, int(jsonErr.Offset)-1, "this is not JSON: "+jsonErr.Error())
	}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := regexp.MustCompile(`^line (\d+): (.*)$`).FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = m[2]
	}
	// The library counts lines from 0 in the errors of its parser, from 1 in
	// those of its scanner, and does not give line 0; an anchor has none.
	switch {
	case strings.HasPrefix(text, "did not find expected"):
		line++
	case line == 0 && !strings.HasPrefix(text, "unknown anchor"):
		line = 1
	}
	return &network.Problem{Line: line, Message: "this is not YAML: " + text}
}

func looksLikeJSON(data []byte) bool {
	data = bytes.TrimSpace(data)
	return len(data) > 0 && (data[0] == '{' || data[0] == '[')
}

// problemAt is a problem of the byte of data at offset.
func problemAt(data []byte, offset int, message string) *network.Problem {
	before := data[:min(max(offset, 0), len(data))]
	return &network.Problem{
		Line:    1 + bytes.Count(before, []byte("\n")),
		Column:  1 + utf8.RuneCount(before[1+bytes.LastIndexByte(before, '\n'):]),
		Message: message,
	}
}
