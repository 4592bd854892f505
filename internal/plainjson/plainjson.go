// Package plainjson reads JSON that is plainly written, and knows when it is
// not. encoding/json has to look at a type before it can decode into it, which
// costs programs that run for milliseconds a tenth of their time. What this
// package can't read, or what encoding/json would read in a way of its own (keys
// in another case, repeated ones, null, escapes), is for that one to judge.
package plainjson

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxDepth bounds how deep values are nested: the stack is not free.
const maxDepth = 16

// Value is a value of a document, or one that is not there. Asking it for what
// it is not makes the document odd.
type Value struct {
	d *document
	n *node
}

type document struct {
	text string
	at   int
	odd  bool
}

// node is a value; kind is its first character, with 0 for a number.
type node struct {
	kind  byte
	text  string
	items []node
	// keys are those of an object's items; asked tells which were asked for.
	keys  []string
	asked []bool
}

// Parse reads a document.
func Parse(data []byte) Value {
	d := &document{text: string(data)}
	n := d.value(0)
	d.blank()
	if d.odd = d.odd || d.at < len(d.text); d.odd {
		return Value{d: d}
	}
	return Value{d, &n}
}

// Plain tells whether all that was met so far is plain: only then do the
// answers count.
func (v Value) Plain() bool { return !v.d.odd }

// There tells whether there is a value.
func (v Value) There() bool { return v.n != nil }

// is tells whether there is a value, which must be of that kind.
func (v Value) is(kind byte) bool {
	if v.n == nil {
		return false
	}
	if v.n.kind != kind {
		v.d.odd = true
		return false
	}
	return true
}

// Get is the member of an object with that name. Names in another case, which
// encoding/json takes for the same, are odd.
func (v Value) Get(name string) (member Value) {
	member.d = v.d
	if !v.is('{') {
		return member
	}
	for i, key := range v.n.keys {
		if key == name {
			v.d.odd = v.d.odd || member.n != nil
			v.n.asked[i] = true
			member.n = &v.n.items[i]
		} else if len(key) == len(name) && strings.EqualFold(key, name) {
			v.d.odd = true
		}
	}
	return member
}

// Has tells whether an object has a member of exactly that name.
func (v Value) Has(name string) bool {
	return v.is('{') && slices.Contains(v.n.keys, name)
}

// IsText tells whether there is a text.
func (v Value) IsText() bool { return v.n != nil && v.n.kind == '"' }

// Closed makes it odd that an object has a member that was not asked for.
func (v Value) Closed() {
	if v.is('{') {
		for _, asked := range v.n.asked {
			v.d.odd = v.d.odd || !asked
		}
	}
}

// List are the elements of an array.
func (v Value) List() (out []Value) {
	if !v.is('[') {
		return nil
	}
	out = make([]Value, len(v.n.items))
	for i := range v.n.items {
		out[i] = Value{v.d, &v.n.items[i]}
	}
	return out
}

// Text is a text; "" where there is no value.
func (v Value) Text() string {
	if !v.is('"') {
		return ""
	}
	return v.n.text
}

// Int is a whole number; 0 where there is no value.
func (v Value) Int() int64 {
	if !v.is(0) {
		return 0
	}
	i, err := strconv.ParseInt(v.n.text, 10, 64)
	v.d.odd = v.d.odd || err != nil
	return i
}

// Uint is a whole number that is not negative; 0 where there is no value.
func (v Value) Uint() uint64 {
	if !v.is(0) {
		return 0
	}
	i, err := strconv.ParseUint(v.n.text, 10, 64)
	v.d.odd = v.d.odd || err != nil
	return i
}

// Bool is true or false; def where there is no value.
func (v Value) Bool(def bool) bool {
	if v.n == nil {
		return def
	}
	v.d.odd = v.d.odd || v.n.kind != 't' && v.n.kind != 'f'
	return v.n.kind == 't'
}

// Addr is an IP address; the zero one where there is no value, or no text.
func (v Value) Addr() netip.Addr {
	text := v.Text()
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	v.d.odd = v.d.odd || err != nil
	return a
}

// Prefix is an IP prefix, as Addr is an address.
func (v Value) Prefix() netip.Prefix {
	text := v.Text()
	if text == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(text)
	v.d.odd = v.d.odd || err != nil
	return p
}

// Odd makes the document odd, for whom a value is of no use.
func (v Value) Odd() { v.d.odd = true }

func (d *document) blank() {
	for d.at < len(d.text) && strings.IndexByte(" \t\r\n", d.text[d.at]) >= 0 {
		d.at++
	}
}

// next takes the character c if it comes next.
func (d *document) next(c byte) bool {
	d.blank()
	if d.at < len(d.text) && d.text[d.at] == c {
		d.at++
		return true
	}
	return false
}

// value reads one value. What is odd ends all reading.
func (d *document) value(depth int) (n node) {
	d.blank()
	if d.odd = d.odd || depth == maxDepth || d.at == len(d.text); d.odd {
		return node{}
	}
	switch c := d.text[d.at]; {
	case c == '{', c == '[':
		d.at++
		n = node{kind: c}
		d.items(&n, depth)
	case c == '"':
		n = node{kind: '"', text: d.string()}
	case c == 't' && strings.HasPrefix(d.text[d.at:], "true"):
		d.at += len("true")
		n = node{kind: 't'}
	case c == 'f' && strings.HasPrefix(d.text[d.at:], "false"):
		d.at += len("false")
		n = node{kind: 'f'}
	default:
		n = node{text: d.number()}
	}
	return n
}

// items reads an object or array behind its bracket.
func (d *document) items(n *node, depth int) {
	end := n.kind + 2 // ']' to '[' and '}' to '{' in ASCII
	if d.next(end) {
		return
	}
	for !d.odd {
		if n.kind == '{' {
			d.blank()
			n.keys = append(n.keys, d.string())
			d.odd = d.odd || !d.next(':')
		}
		n.items = append(n.items, d.value(depth+1))
		if d.next(end) {
			n.asked = make([]bool, len(n.keys))
			return
		}
		d.odd = d.odd || !d.next(',')
	}
}

// string reads a text of ASCII without escapes.
func (d *document) string() string {
	if d.odd = d.odd || d.at == len(d.text) || d.text[d.at] != '"'; d.odd {
		return ""
	}
	start := d.at + 1
	for i := start; i < len(d.text); i++ {
		switch c := d.text[i]; {
		case c == '"':
			d.at = i + 1
			return d.text[start:i]
		case c < ' ' || c == '\\' || c >= 0x7f:
			d.odd = true
			return ""
		}
	}
	d.odd = true
	return ""
}

// Quotable tells whether text between quotes is what encoding/json makes of it.
func Quotable(text string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ' || c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// number reads a whole number.
func (d *document) number() string {
	start := d.at
	if d.text[d.at] == '-' {
		d.at++
	}
	digits := d.at
	for d.at < len(d.text) && d.text[d.at] >= '0' && d.text[d.at] <= '9' {
		d.at++
	}
	n := d.at - digits
	d.odd = d.odd || n == 0 || n > 1 && d.text[digits] == '0'
	return d.text[start:d.at]
}
