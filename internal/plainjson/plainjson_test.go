package plainjson

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

func TestValues(t *testing.T) {
	v := Parse([]byte(" {\"a\": \"x\", \"n\":-12 ,\"yes\":true,\"no\":false,\r\n\t\"l\":[\"9.0.0.0/8\",\"\"], \"o\":{\"ip\":\"fd00::1\"},\"e\":{},\"z\":[]} "))
	prefixes := v.Get("l").List()
	if v.Get("a").Text() != "x" || v.Get("n").Int() != -12 || !v.Get("yes").Bool(false) || v.Get("no").Bool(true) ||
		len(prefixes) != 2 || prefixes[0].Prefix().String() != "9.0.0.0/8" || prefixes[1].Prefix().IsValid() ||
		v.Get("o").Get("ip").Addr().String() != "fd00::1" || v.Get("none").There() || v.Get("none").Get("a").Text() != "" || !v.Get("none").Bool(true) ||
		!v.Get("e").There() || len(v.Get("z").List()) != 0 {
		t.Error("a value is not as it is written")
	}
	if v.Closed(); !v.Plain() {
		t.Error("it is odd")
	}
}

func TestOdd(t *testing.T) {
	for _, text := range []string{
		"", " ", "{", "{}x", `{"a":1,}`, `{"a"}`, `{"a":}`, `{a:1}`, `[1,]`, `[1 2]`, `"a`, `"\u0041"`, "\"\n\"", `"ä"`, "nul", "null", "tru", "01", "-", "1.5", "1e3",
		strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), strings.Repeat("[", 1<<20),
	} {
		if Parse([]byte(text)).Plain() {
			t.Errorf("%.40q is plain", text)
		}
	}
	for text, ask := range map[string]func(Value){
		`{"a":1,"A":2}`: func(v Value) { v.Get("a") },
		`{"a":1,"a":1}`: func(v Value) { v.Get("a") },
		`{"A":1}`:       func(v Value) { v.Get("a") },
		`{"a":"1"}`:     func(v Value) { v.Get("a").Int() },
		`{"a":1}`:       func(v Value) { v.Get("a").Text() },
		`{"a":"true"}`:  func(v Value) { v.Get("a").Bool(false) },
		`{"a":"x"}`:     func(v Value) { v.Get("a").Addr() },
		`{"a":"9/8"}`:   func(v Value) { v.Get("a").Prefix() },
		`{"a":{}}`:      func(v Value) { v.Get("a").List() },
		`{"a":[]}`:      func(v Value) { v.Get("a").Get("b") },
		`{"a":7,"b":8}`: func(v Value) { v.Get("a"); v.Closed() },
		`{"a":99999999999999999999}`: func(v Value) {
			v.Get("a").Int()
		},
		`{}`: Value.Odd,
	} {
		v := Parse([]byte(text))
		if !v.Plain() {
			t.Errorf("%s is odd before it is asked", text)
		}
		if ask(v); v.Plain() {
			t.Errorf("%s is plain", text)
		}
	}
}

// FuzzParse: what is plain is what encoding/json says.
func FuzzParse(f *testing.F) {
	for _, text := range []string{`{"a":[1,-2,{"b":"c"}],"d":true}`, `[]`, `0`, `"x"`, `{"a":1,"a":2}`, "[[[[]]]]", ` {"a" : false } `} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := Parse(data)
		if !v.Plain() {
			return
		}
		dec := json.NewDecoder(strings.NewReader(string(data)))
		dec.UseNumber()
		var want any
		if !json.Valid(data) || dec.Decode(&want) != nil {
			t.Fatalf("%q is plain and no JSON", data)
		}
		compare(t, v.n, want)
	})
}

func compare(t *testing.T, n *node, want any) {
	switch w := want.(type) {
	case map[string]any:
		last := map[string]*node{}
		for i, key := range n.keys {
			last[key] = &n.items[i]
		}
		if n.kind != '{' || len(last) != len(w) {
			t.Fatalf("%v is %+v", want, n)
		}
		for key, item := range last {
			compare(t, item, w[key])
		}
	case []any:
		if n.kind != '[' || len(n.items) != len(w) {
			t.Fatalf("%v is %+v", want, n)
		}
		for i := range w {
			compare(t, &n.items[i], w[i])
		}
	case string:
		if n.kind != '"' || n.text != w {
			t.Fatalf("%q is %+v", w, n)
		}
	case json.Number:
		if n.kind != 0 || n.text != w.String() {
			t.Fatalf("%v is %+v", w, n)
		}
	case bool:
		if strconv.FormatBool(w)[0] != n.kind {
			t.Fatalf("%v is %+v", w, n)
		}
	default:
		t.Fatalf("%v is %+v", want, n)
	}
}
