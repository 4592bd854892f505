package overview

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// agent is one that holds a subnet of each overlay, in this state.
func agent(ip string, alive bool, overlays ...lease.Overlay) registry.SeenAgent {
	addr := netip.MustParseAddr(ip)
	last := addr.As4()[3]
	return registry.SeenAgent{Alive: alive, Agent: &lease.Agent{
		ID: "id-of-" + ip, IP: addr, Overlays: overlays,
		VTEP: lease.VTEP{IP: netip.PrefixFrom(netip.AddrFrom4([4]byte{44, 128, 0, 100 - last}), 20), IP6: netip.MustParsePrefix("fd01:a::1/64")},
	}}
}

func held(name string, status lease.Status, problem string, subnets ...string) lease.Overlay {
	o := lease.Overlay{Name: name, State: lease.State{Status: status, Error: problem}}
	for _, s := range subnets {
		p := netip.MustParsePrefix(s)
		if p.Addr().Is6() {
			o.Subnets6 = append(o.Subnets6, p)
		} else {
			o.Subnets = append(o.Subnets, p)
		}
	}
	return o
}

func sample() *view {
	agents := []registry.SeenAgent{
		agent("10.0.0.1", true, held("dcos", lease.StatusOK, "", "9.0.0.0/24")),
		agent("10.0.0.2", true, held("dcos", lease.StatusOK, "", "9.0.1.0/24"), held("web", lease.StatusFailed, "No Docker", "10.1.0.0/26", "fd01:b::/80")),
		agent("10.0.0.3", false, held("dcos", lease.StatusFailed, "of old", "9.0.2.0/24")),
		agent("10.0.0.4", true, held("dcos", lease.StatusConfiguring, "", "9.0.3.0/24")),
		agent("10.0.0.5", true),
		agent("10.0.0.6", true, held("web", lease.StatusInvalid, "odd", "10.1.0.64/26")),
		agent("10.0.0.10", true, held("dcos", "", "", "9.0.9.0/24")),
	}
	v := &view{sight: registry.Sight{Agents: agents}, rows: rows(agents, nil)}
	v.rows[0].fullest = &api.Part{Overlay: "dcos", Usage: api.Usage{Used: 5, Free: 5}}
	v.rows[4].fullest = &api.Part{Overlay: "dcos", Usage: api.Usage{Used: 9, Free: 1}}
	return v
}

// last names the agents of an answer by the ends of their addresses.
func last(o api.Overview) string {
	var out []string
	for _, a := range o.Agents {
		out = append(out, a.IP.String()[strings.LastIndex(a.IP.String(), ".")+1:])
	}
	return strings.Join(out, " ")
}

func TestAnswer(t *testing.T) {
	v := sample()
	for query, want := range map[string]string{
		"":                              "1 2 3 4 5 6 10",
		"sort=-ip":                      "10 6 5 4 3 2 1",
		"sort=vtep":                     "10 6 5 4 3 2 1",
		"sort=-vtep":                    "1 2 3 4 5 6 10",
		"sort=-state":                   "2 6 3 4 10 1 5",
		"sort=state":                    "1 5 4 10 3 2 6",
		"sort=-use":                     "5 1 2 3 4 6 10",
		"state=failed":                  "2 6",
		"state=silent":                  "3",
		"state=configuring":             "4 10",
		"state=ok":                      "1 5",
		"overlay=web":                   "2 6",
		"overlay=web&state=ok":          "",
		"overlay=none":                  "",
		"q=10.0.0.1":                    "1 10",
		"q=9.0.1.77":                    "2",
		"q=FD01:B::5":                   "2",
		"q=fd01:a::1":                   "1 2 3 4 5 6 10",
		"q=9.0.2.0/24":                  "3",
		"q=docker+no":                   "2",
		"q=docker+odd":                  "",
		"q=44.128.0.94":                 "6",
		"q=id-of-10.0.0.5":              "5",
		"limit=2":                       "1 2",
		"limit=2&offset=2":              "3 4",
		"limit=2&offset=6":              "10",
		"limit=2&offset=600":            "10",
		"limit=3&offset=600":            "10",
		"limit=2&offset=9&state=failed": "2 6",
		"offset=9&q=nothing":            "",
		"limit=2&sort=-state&offset=2":  "3 4",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		q, err := Parse(values)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		if got := last(v.answer(q)); got != want {
			t.Errorf("%s: agents %s, want %s", query, got, want)
		}
	}
	q, err := Parse(url.Values{"state": {"failed"}, "limit": {"1"}})
	if err != nil {
		t.Fatal(err)
	}
	o := v.answer(q)
	if o.Total != 7 || o.Matching != 2 || fmt.Sprint(o.States) != "map[configuring:2 failed:2 ok:2 silent:1]" {
		t.Errorf("got %+v", o)
	}
	if a := o.Agents[0]; a.Overlay != "web" || a.Reason != "No Docker" {
		t.Errorf("got %+v", a)
	}
}

func TestParseRefuses(t *testing.T) {
	for query, want := range map[string]string{
		"page=1":                        "takes no parameter page: there are q, overlay, state, sort, offset, limit",
		"limit=0":                       "limit is \"0\"",
		"limit=501":                     "from 1 to 500",
		"offset=-1":                     "offset is \"-1\"",
		"offset=99999999999999999999":   "offset is",
		"sort=mac":                      "sort is \"mac\"",
		"sort=--ip":                     "sort is \"--ip\"",
		"state=STATUS_OK":               "it must be failed, silent, configuring or ok",
		"q=a&q=b":                       "q is given 2 times",
		"q=" + strings.Repeat("x", 257): "q has 257 bytes",
		"q=1+2+3+4+5+6+7+8+9":           "q has 9 words",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(values)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.CodeInvalid || !strings.Contains(e.Message, want) {
			t.Errorf("%s: %v, want %s", query, err, want)
		}
	}
}

// TestRowsAreKept: what is not new is not made anew.
func TestRowsAreKept(t *testing.T) {
	old := sample()
	agents := slices.Clone(old.sight.Agents)
	agents = slices.Delete(agents, 1, 2)
	agents[2].Alive = false
	agents = slices.Insert(agents, 0, agent("9.9.9.9", true))
	now := rows(agents, old)
	var kept []string
	for i, r := range now {
		if r.seen.IP != agents[i].IP {
			t.Fatalf("row %d is of %s", i, r.seen.IP)
		}
		if slices.Contains(old.rows, r) {
			kept = append(kept, r.seen.IP.String())
		}
	}
	if want := []string{"10.0.0.1", "10.0.0.3", "10.0.0.5", "10.0.0.6", "10.0.0.10"}; !slices.Equal(kept, want) {
		t.Errorf("kept are %v, want %v", kept, want)
	}
	if now[3].state != api.AgentSilent {
		t.Errorf("the one that fell silent is %s", now[3].state)
	}
}

// TestAge: rows that took long are kept for longer, but not for ever.
func TestAge(t *testing.T) {
	// Revisions are not asked for here: these are decided by times alone.
	for _, tt := range []struct {
		age, took time.Duration
		fresh     bool
	}{
		{2 * time.Second, time.Second, true},
		{maxAge + time.Second, time.Second, false},
		{maxAge + time.Second, time.Minute, false},
	} {
		o := Overview{view: &view{built: time.Now().Add(-tt.age), took: tt.took}}
		if got := o.fresh() != nil; got != tt.fresh {
			t.Errorf("rows of %s ago that took %s will do: %t", tt.age, tt.took, got)
		}
	}
}

func TestFill(t *testing.T) {
	wide := &api.Part{Usage: api.Usage{Used: 1, Free: 1<<63 - 1}}
	if got := fill(wide); got <= 0 || got > 1e-18 {
		t.Errorf("one of very many is %g", got)
	}
	if fill(nil) >= fill(&api.Part{}) || fill(&api.Part{Usage: api.Usage{Used: 3}}) != 1 {
		t.Error("nothing known is less than nothing used, and all is 1")
	}
}

// BenchmarkAnswer searches among 65,536 agents.
func BenchmarkAnswer(b *testing.B) {
	agents := make([]registry.SeenAgent, 0, 1<<16)
	for i := range 1 << 16 {
		a := agent("10.0.0.1", true, held("dcos", lease.StatusOK, "", fmt.Sprintf("9.%d.%d.0/24", i>>8, i&255)))
		a.IP = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		agents = append(agents, a)
	}
	begin := time.Now()
	v := &view{rows: rows(agents, nil)}
	b.Logf("%d rows made in %s", len(v.rows), time.Since(begin))
	for _, query := range []string{"", "q=9.77.3.9", "sort=-use", "sort=vtep"} {
		b.Run(query, func(b *testing.B) {
			values, err := url.ParseQuery(query)
			if err != nil {
				b.Fatal(err)
			}
			q, err := Parse(values)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				v.answer(q)
			}
		})
	}
}
