package output

import (
	"bytes"
	"encoding/json"
	"testing"

	"go.yaml.in/yaml/v3"
)

type sample struct {
	Name string   `json:"name"`
	Yes  string   `json:"yes"`
	N    int      `json:"n"`
	List []string `json:"list"`
}

func TestPrint(t *testing.T) {
	v := sample{Name: "dcos", Yes: "true", N: 3, List: []string{"1.0", "fd01::/64"}}
	rows := func(r *Rows) {
		r.Head("name", "n")
		r.Add("dcos", 3)
		r.Add("a-long-näme", Cell{"7", Bad})
		r.Head("other")
		r.Add("")
	}
	for _, tt := range []struct {
		format Format
		colour bool
		want   string
	}{
		{Table, false, "NAME         N\ndcos         3\na-long-näme  7\n\nOTHER\n-\n"},
		{Table, true, "\x1b[1mNAME\x1b[0m         \x1b[1mN\x1b[0m\ndcos         3\na-long-näme  \x1b[31m7\x1b[0m\n\n\x1b[1mOTHER\x1b[0m\n-\n"},
		{JSON, true, "{\n  \"name\": \"dcos\",\n  \"yes\": \"true\",\n  \"n\": 3,\n  \"list\": [\n    \"1.0\",\n    \"fd01::/64\"\n  ]\n}\n"},
		{YAML, true, "name: dcos\nyes: \"true\"\nn: 3\nlist:\n  - \"1.0\"\n  - fd01::/64\n"},
	} {
		var b bytes.Buffer
		if err := (Printer{W: &b, Format: tt.format, Colour: tt.colour}).Print(v, rows); err != nil {
			t.Fatal(err)
		}
		if b.String() != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.format, b.String(), tt.want)
		}
	}
}

// TestYAMLSaysTheSame as JSON, for values that YAML could take for others.
func TestYAMLSaysTheSame(t *testing.T) {
	want := map[string]any{"a": "no", "b": "0123", "c": "1e3", "d": "", "e": "null", "f": "2001-01-01", "g": "a: b", "h": "x\ny", "i": "70:b3:d5", "j": true}
	var b bytes.Buffer
	if err := (Printer{W: &b, Format: YAML}).Print(want, nil); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := yaml.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	g, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(g) != string(w) {
		t.Errorf("got  %s\nwant %s\nfrom\n%s", g, w, b.String())
	}
}

func TestLine(t *testing.T) {
	for format, want := range map[Format]string{
		Table: "text\n", JSON: `{"n":1}` + "\n", YAML: "---\nn: 1\n",
	} {
		var b bytes.Buffer
		if err := (Printer{W: &b, Format: format}).Line(map[string]int{"n": 1}, "text"); err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v, want %q", format, b.String(), err, want)
		}
	}
}
