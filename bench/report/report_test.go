package report

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/bench/stat"
)

func rows() []Row {
	sum := func(v float64) stat.Summary { return stat.Summary{N: 50, Median: v, Q1: v * 0.9, Q3: v * 1.1} }
	return []Row{
		{Part: "a", What: "ADD <warm>", Against: "stock", Ours: sum(6), Peer: sum(12), Ratio: sum(0.5), Unit: "ms", Goal: 0.5},
		{Part: "a", What: "DEL", Against: "stock", Ours: sum(1), Peer: sum(1), Ratio: sum(1), Unit: "ms"},
		{Part: "b", What: "throughput", Against: "by hand", Ours: sum(9), Peer: sum(10), Ratio: sum(0.9), Unit: "Gbit/s", Goal: 0.98, AtLeast: true},
		{Part: "b", What: "absent", Against: "stock", Unit: "ms", Goal: 0.5, NotMeasured: "there is none"},
	}
}

func TestTable(t *testing.T) {
	want := `what        ours         against  theirs       ratio  quartiles  runs  goal    ` + `
ADD <warm>  6.00 ms      stock    12.0 ms      0.50   0.45–0.55  50    ≤ 0.50  met
DEL         1.00 ms      stock    1.00 ms      1.00   0.90–1.10  50            ` + `
throughput  9.00 Gbit/s  by hand  10.0 Gbit/s  0.90   0.81–0.99  50    ≥ 0.98  missed
absent                   stock                                   0             not measured: there is none
`
	if got := Table(rows()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMerge(t *testing.T) {
	older := []Row{{Part: "b", What: "old b"}, {Part: "gone"}, {Part: "a", What: "old a"}}
	got := Merge([]string{"a", "b", "c"}, older, []Row{{Part: "b", What: "new b"}})
	if len(got) != 2 || got[0].What != "old a" || got[1].What != "new b" {
		t.Errorf("%+v", got)
	}
}

func TestPlotsAreXML(t *testing.T) {
	for name, plot := range map[string]string{"ratios": Ratios(rows()), "times": Times(rows())} {
		d := xml.NewDecoder(strings.NewReader(plot))
		elements := 0
		for {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v in\n%s", name, err, plot)
			}
			if _, ok := token.(xml.StartElement); ok {
				elements++
			}
		}
		if strings.Contains(plot, "absent") {
			t.Errorf("%s shows what was not measured", name)
		}
		if elements < 10 || !strings.Contains(plot, "prefers-color-scheme: dark") {
			t.Errorf("%s:\n%s", name, plot)
		}
	}
}

func TestDocument(t *testing.T) {
	d := Document{Dir: t.TempDir(), Parts: []string{"a", "b"}}
	path := filepath.Join(d.Dir, "benchmarks.md")
	if err := d.Update(rows()[:2], "a machine"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("Before.\n"+string(text)+"After.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Update(rows()[2:], "a machine"); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Before.\n", "After.\n", "| ADD <warm> |", "| throughput |"} {
		if strings.Count(string(text), want) != 1 {
			t.Errorf("there is not one %q in\n%s", want, text)
		}
	}
	if err := os.WriteFile(path, []byte("no place for it\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Update(rows(), ""); err == nil {
		t.Error("a document without the marks was overwritten")
	}
}
