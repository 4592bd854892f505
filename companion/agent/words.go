package agent

import "strings"

// said remembers what was logged last about each of a few things, so that a
// trouble that lasts is told once. The zero value has said nothing.
type said struct {
	last map[string]string
}

// news tells whether text about key differs from what was said last; the empty
// text means that there is no trouble, and is what was said at first.
func (s *said) news(key, text string) bool {
	if s.last[key] == text {
		return false
	}
	if s.last == nil {
		s.last = map[string]string{}
	}
	if text == "" {
		delete(s.last, key)
	} else {
		s.last[key] = text
	}
	return true
}

// errorText is err's text, or nothing.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// oneLine is err's text as a state's reason; errors.Join makes several lines.
func oneLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
