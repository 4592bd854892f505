package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
)

// listBuffer is how much of a long answer is written at once, in bytes.
const listBuffer = 64 << 10

// writeList writes v, whose first field is an empty list, with items in it:
// what is in the list need not be in memory twice, nor marshalled again.
func writeList(w io.Writer, v any, items iter.Seq2[[]byte, error]) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	head, tail, ok := bytes.Cut(body, []byte("[]"))
	if !ok {
		return fmt.Errorf("%T does not begin with an empty list", v)
	}
	out := bufio.NewWriterSize(w, listBuffer)
	// A bufio.Writer keeps its first error and returns it in the end.
	_, _ = out.Write(head)
	separator := "["
	for item, err := range items {
		if err != nil {
			return err
		}
		_, _ = out.WriteString(separator)
		_, err := out.Write(item)
		if err != nil {
			return err
		}
		separator = ","
	}
	if separator == "[" {
		_ = out.WriteByte('[')
	}
	_ = out.WriteByte(']')
	_, _ = out.Write(tail)
	return out.Flush()
}

// plain makes of items that can't fail a list for writeList.
func plain(items iter.Seq[[]byte]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}
