package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// isTerminal tells whether a stream is a file that is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// confirm asks before something that can't be undone. Without terminal nobody
// could answer, so --yes must have.
func (s *session) confirm(question string) error {
	if s.yes {
		return nil
	}
	if !s.env.terminal(s.env.stdin) || !s.env.terminal(s.env.stderr) {
		return usageError{fmt.Errorf("%s Give --yes to say so without being asked", question)}
	}
	fmt.Fprintf(s.env.stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(io.LimitReader(s.env.stdin, 100)).ReadString('\n')
	if err != nil && answer == "" {
		return usageError{fmt.Errorf("read the answer: %w", err)}
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return usageError{fmt.Errorf("nothing was done")}
}

// progress shows how far long work is, where the standard error is a terminal.
type progress struct {
	w     io.Writer
	what  string
	total int
	done  int
}

// progress begins with nothing of total done.
func (s *session) progress(what string, total int) *progress {
	p := &progress{what: what, total: total}
	if s.env.terminal(s.env.stderr) {
		p.w = s.env.stderr
	}
	p.show()
	return p
}

func (p *progress) step() {
	p.done++
	p.show()
}

func (p *progress) show() {
	if p.w == nil {
		return
	}
	const width = 30
	filled := width
	if p.total > 0 {
		filled = width * p.done / p.total
	}
	fmt.Fprintf(p.w, "\r%s [%s%s] %d/%d", p.what, strings.Repeat("#", filled), strings.Repeat(".", width-filled), p.done, p.total)
}

// end takes the bar away.
func (p *progress) end() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
