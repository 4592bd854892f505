package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// call runs the program as from a shell without terminal.
func call(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), environment{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs,
		getenv: func(string) string { return "" }, terminal: func(any) bool { return false },
	}, args)
	return code, out.String(), errs.String()
}

// update is the variable by which TestValidate writes what it should compare
// with: for whoever has changed a message, and then reads the difference.
const update = "UPDATE_GOLDEN"

// TestValidate compares what is said of DC/OS's samples and of broken files.
// Those whose name begins with bad must be refused.
func TestValidate(t *testing.T) {
	t.Chdir(filepath.Join("testdata", "validate"))
	files, err := filepath.Glob("*.*")
	if err != nil {
		t.Fatal(err)
	}
	bad, good := 0, 0
	for _, name := range files {
		if filepath.Ext(name) == ".golden" {
			continue
		}
		code, got, stderr := call(t, "", "validate", name)
		if stderr != "" {
			t.Errorf("%s: on standard error there is %q", name, stderr)
		}
		// DC/OS's sample state has a slip, which is found.
		wrong := strings.HasPrefix(name, "bad") || name == "overlay-master-state.json"
		if (code == exitFound) != wrong || (code == exitOK) == wrong {
			t.Errorf("%s: exit status %d:\n%s", name, code, got)
		}
		if wrong {
			bad++
		} else {
			good++
		}
		if os.Getenv(update) != "" {
			if err := os.WriteFile(name+".golden", []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name + ".golden")
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
		for line := range strings.Lines(got) {
			if wrong && !strings.HasPrefix(line, name+":") {
				t.Errorf("%s: a line that is no problem: %q", name, line)
			}
		}
	}
	if bad < 40 || good < 7 {
		t.Errorf("there are %d broken files and %d good ones only", bad, good)
	}
}

func TestValidateInput(t *testing.T) {
	if code, out, _ := call(t, `{"ip": "10.0.0.1"}`, "validate", "-"); code != exitOK || out != "-: ok, a configuration of an agent\n" {
		t.Errorf("standard input: %d, %q", code, out)
	}
	if code, _, stderr := call(t, "", "validate", "absent.json"); code != exitUsage || !strings.Contains(stderr, "absent.json: no such file") {
		t.Errorf("an absent file: %d, %q", code, stderr)
	}
	code, out, _ := call(t, `{"ip": "x"}`, "validate", "-", "-o", "json")
	var got []validated
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitFound || len(got) != 1 || len(got[0].Problems) != 1 || got[0].Problems[0].Line != 1 {
		t.Errorf("as JSON: %d, %s, %v", code, out, err)
	}
}

func TestConfirm(t *testing.T) {
	for _, tt := range []struct {
		answer   string
		terminal bool
		yes, ok  bool
	}{
		{"y\n", true, false, true},
		{"YES", true, false, true},
		{"\n", true, false, false},
		{"no\n", true, false, false},
		{"", true, false, false},
		{"y\n", false, false, false},
		{"", false, true, true},
	} {
		var asked bytes.Buffer
		s := session{yes: tt.yes, env: environment{
			stdin: strings.NewReader(tt.answer), stdout: io.Discard, stderr: &asked, terminal: func(any) bool { return tt.terminal },
		}}
		err := s.confirm("Sure?")
		if (err == nil) != tt.ok || (asked.Len() > 0) != (tt.terminal && !tt.yes) {
			t.Errorf("%+v: %v, asked %q", tt, err, asked.String())
		}
		if err != nil && exitCode(err) != exitUsage {
			t.Errorf("%+v: exit status %d", tt, exitCode(err))
		}
	}
}

// TestColours: on a terminal only, and not if NO_COLOR is set.
func TestColours(t *testing.T) {
	for _, tt := range []struct {
		terminal bool
		noColor  string
		want     bool
	}{{true, "", true}, {true, "1", false}, {false, "", false}} {
		s := session{env: environment{
			getenv:   func(name string) string { return map[string]string{"NO_COLOR": tt.noColor}[name] },
			terminal: func(any) bool { return tt.terminal },
		}}
		if got := s.printer().Colour; got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
