// Package manual reads the project's manuals and plays their commands on hosts
// of a lab, each where the manual says that a reader runs it.
//
// A fenced block of commands begins with "sh" and the name of a place, such as
// "agent". "again" after it is for blocks that only look, at what comes to be in
// a moment: readers type slower than hosts hear of each other, tests do not.
// Markdown shows nothing of both.
package manual

import (
	"fmt"
	"strings"
)

// Block is one fenced block of a manual.
type Block struct {
	// Line is where the block opens, from 1.
	Line int
	// Language is the first word after the fence, Place the second one.
	Language, Place string
	// Again tells that it may be played until it succeeds.
	Again bool
	// Text is what stands between the fences, without the indentation that
	// the opening one has.
	Text string
}

const (
	fence = "```"
	again = "again"
)

// Blocks are the fenced blocks of a text, in its order. One that is never
// closed, or that says something else after its fence, is an error.
func Blocks(text string) ([]Block, error) {
	var (
		blocks []Block
		open   *Block
		indent string
	)
	n := 0
	for line := range strings.Lines(text) {
		n++
		bare := strings.TrimLeft(line, " ")
		switch {
		case open == nil && strings.HasPrefix(bare, fence):
			words := strings.Fields(strings.TrimPrefix(bare, fence))
			if len(words) == 0 || len(words) > 3 || len(words) == 3 && words[2] != again {
				return nil, fmt.Errorf("line %d: a block says its language, at most a place, and at most %q; not %q", n, again, words)
			}
			open = &Block{Line: n, Language: words[0], Again: len(words) == 3}
			if len(words) > 1 {
				open.Place = words[1]
			}
			indent = line[:len(line)-len(bare)]
		case open != nil && strings.TrimRight(bare, "\n") == fence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent)
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block is not closed", open.Line)
	}
	return blocks, nil
}

// Head is the first line of the block's text, which tells it from others.
func (b Block) Head() string {
	head, _, _ := strings.Cut(b.Text, "\n")
	return head
}
