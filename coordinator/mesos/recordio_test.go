package mesos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func record(text string) string { return fmt.Sprintf("%d\n%s", len(text), text) }

func TestRecords(t *testing.T) {
	for _, test := range []struct {
		in   string
		want []string
		err  error
		text string
	}{
		{"", nil, io.EOF, ""},
		{record("a") + record("") + record("b\nc"), []string{"a", "", "b\nc"}, io.EOF, ""},
		{record("a") + "12", []string{"a"}, io.ErrUnexpectedEOF, "read the length of a record"},
		{record("a") + "12\nabc", []string{"a"}, io.ErrUnexpectedEOF, "read a record of 12 bytes"},
		{"\nabc", nil, errFormat, `'\n' follows "" where`},
		{"-1\na", nil, errFormat, `'-' follows`},
		{" 1\na", nil, errFormat, `' ' follows`},
		{"<html>", nil, errFormat, `'<' follows`},
		{"11111111111\n", nil, errFormat, `'1' follows "1111111111"`},
		{"65\n" + strings.Repeat("a", 65), nil, nil, "a record has 65 bytes: at most 64 are taken"},
		{"64\n" + strings.Repeat("a", 64), []string{strings.Repeat("a", 64)}, io.EOF, ""},
		// A length that is a lie takes no memory.
		{"64\n", nil, io.ErrUnexpectedEOF, "64 bytes"},
	} {
		// However the bytes arrive.
		for name, in := range map[string]io.Reader{
			"at once": strings.NewReader(test.in), "byte by byte": iotest.OneByteReader(strings.NewReader(test.in)),
			"in halves": iotest.HalfReader(strings.NewReader(test.in)), "with the error": iotest.DataErrReader(strings.NewReader(test.in)),
		} {
			r := newRecords(in)
			r.max = 64
			var got []string
			var err error
			for err == nil {
				var b []byte
				if b, err = r.next(); err == nil {
					got = append(got, string(b))
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) || test.err != nil && !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%q %s: got %q, %v", test.in, name, got, err)
			}
		}
	}
}

// FuzzRecords: no input makes it panic, and what it takes is what a writer of
// RecordIO would send.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(record(`{"type":"HEARTBEAT"}`) + record("")))
	f.Add([]byte("007\nabcdefg"))
	f.Add([]byte("99999999999\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newRecords(iotest.OneByteReader(bytes.NewReader(in)))
		r.max = 1 << 16
		var again bytes.Buffer
		for {
			b, err := r.next()
			if err != nil {
				break
			}
			if int64(len(b)) > r.max {
				t.Fatalf("a record of %d bytes", len(b))
			}
			again.WriteString(record(string(b)))
		}
		second := newRecords(&again)
		second.max = r.max
		for {
			if _, err := second.next(); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatalf("what was written anew can't be read: %v", err)
			}
		}
	})
}

// FuzzState: no event makes it panic.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"type":"SUBSCRIBED","subscribed":{"get_state":{"get_agents":{"agents":[{"agent_info":{"id":{"value":"a"}},"pid":"slave(1)@10.0.0.1:5051"}],"recovered_agents":[{"id":{"value":"b"}}]}},"heartbeat_interval_seconds":15}}`), []byte(`{"type":"AGENT_REMOVED","agent_removed":{"agent_id":{"value":"b"}}}`))
	f.Add([]byte(`{"type":"SUBSCRIBED","subscribed":{"get_state":{"get_agents":{}}}}`), []byte(`{"type":"AGENT_ADDED","agent_added":{"agent":{"agent_info":{"id":{"value":"c"}},"pid":"slave(1)@[fd00::1]:5051"}}}`))
	f.Fuzz(func(_ *testing.T, first, later []byte) {
		s, err := begin(first)
		if err != nil {
			return
		}
		_ = s.apply(later)
		s.view()
	})
}
