package conf

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	alertsPath    = "prometheus/alerts.yaml"
	dashboardPath = "grafana/dcos-overlay.json"
)

// promtool runs Prometheus's own judge.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v (scripts/install-deps.sh installs it)\n%s", args, err, out)
	}
}

// TestAlerts plays series against the rules: those fire that should, no others.
func TestAlerts(t *testing.T) {
	promtool(t, "check", "rules", alertsPath)
	promtool(t, "test", "rules", "testdata/alerts_test.yaml")
}

// dashboard is what the test needs of Grafana's format.
type dashboard struct {
	Title      string
	Templating struct{ List []struct{ Name string } }
	Panels     []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ Expr, RefID string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile(dashboardPath)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatalf("%s: %v", dashboardPath, err)
	}
	return d
}

// TestDashboard: every panel has queries that Prometheus understands, and a
// place of its own.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	ids, taken := map[int]bool{}, map[[2]int]string{}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q has the number of another one, %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if taken[[2]int{x, y}] != "" || x > 23 {
					t.Fatalf("panel %q is over %q, or beyond the edge", p.Title, taken[[2]int{x, y}])
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %q, a %s, has %d queries", p.Title, p.Type, len(p.Targets))
		}
		for _, target := range p.Targets {
			expr, err := json.Marshal(target.Expr) // a JSON string is one of YAML
			if err != nil {
				t.Fatal(err)
			}
			rules += "  - record: panel\n    labels: {panel: " + p.Title[:1] + "}\n    expr: " + string(expr) + "\n"
		}
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", "--lint=none", path)
}

// TestMetricsExist: alerts and dashboard ask for metrics that the manual has;
// that those are the code's, the packages that make them test.
func TestMetricsExist(t *testing.T) {
	manual, err := os.ReadFile("../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(manual), "\n## Metrics\n")
	text, _, _ = strings.Cut(text, "\n## ")
	coordinators, companions, ok := strings.Cut(text, "The companion's begin with")
	if !ok {
		t.Fatal("docs/reference.md has no section of metrics as this test knows it")
	}
	known := map[string]string{"coordinator": coordinators, "companion": companions}
	metric := regexp.MustCompile(`dcos_overlay_([a-z]+)_([a-z_]+)`)
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	for _, path := range []string{alertsPath, dashboardPath} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := metric.FindAllStringSubmatch(string(data), -1)
		if len(found) < 20 {
			t.Errorf("%s asks for %d metrics only", path, len(found))
		}
		for _, m := range found {
			name := suffix.ReplaceAllString(m[2], "")
			if !strings.Contains(known[m[1]], "`"+name+"`") {
				t.Errorf("%s asks for %s, which docs/reference.md does not have", path, m[0])
			}
		}
	}
}
