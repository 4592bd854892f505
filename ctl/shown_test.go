package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestShown has a coordinator tell what is out of the ordinary, and looks for
// it in what is printed.
func TestShown(t *testing.T) {
	const (
		agents = `{"agents": [
			{"id": "a", "ip": "172.17.0.3", "vtep": {"ip": "44.128.0.1/20", "mac": "70:b3:d5:80:00:01"}, "network_config": {}},
			{"id": "b", "ip": "172.17.0.4", "vtep": {"ip": "44.128.0.2/20", "mac": "70:b3:d5:80:00:02"}, "network_config": {}}],
			"network": {"vtep_subnet": "44.128.0.0/20", "overlays": []}, "revision": 9, "status": {
			"172.17.0.3": {"alive": true},
			"172.17.0.4": {"silent_since": "2030-01-02T03:00:00Z", "gone_since": "2030-01-02T04:00:00Z"}}}`
		agent = `{"id": "a", "ip": "172.17.0.3", "vtep": {"ip": "44.128.0.1/20", "mac": "70:b3:d5:80:00:01"}, "network_config": {},
			"overlays": [{"name": "dual", "subnets": ["10.0.0.0/24", "10.0.7.0/24"], "subnets6": ["fd01::/80", "fd01:0:0:0:9::/80"],
			"addresses": [{"ip": "10.0.200.7", "container": "c", "interface": "eth0"}], "state": {"status": "STATUS_OK"}}],
			"status": {"alive": true, "gone_since": "2030-01-02T04:00:00Z", "host_routes": ["10.0.3.0/24"],
			"route_clashes": [{"route": "10.0.3.0/24", "with": ["overlay dual (10.0.0.0/16)"]}]}, "entry": {}}`
		overlays = `[{"name": "dual", "subnet": "10.0.0.0/16", "prefix": 24, "subnet6": "fd01::/64", "prefix6": 80, "isolated": true, "max_subnets": 4,
			"holders": 2, "subnets": {"leased": 5, "resting": 1, "free": 250}, "subnets6": {"leased": 6, "resting": 0, "free": 1e18}},
			{"name": "open", "subnet": "10.9.0.0/16", "prefix": 24, "enabled": false, "isolated": true, "holders": 0}]`
	)
	stale := ""
	coordinator := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if stale != "" {
			w.Header().Set("X-Dcos-Overlay-Stale", stale)
		}
		switch r.URL.Path {
		case "/v1/agents":
			_, _ = io.WriteString(w, agents)
		case "/v1/agents/172.17.0.3":
			_, _ = io.WriteString(w, agent)
		case "/v1/overlays":
			_, _ = io.WriteString(w, overlays)
		}
	}))
	defer coordinator.Close()
	wants := func(args string, want ...string) {
		t.Helper()
		code, stdout, stderr := call(t, "", append(strings.Fields(args), "--coordinator", coordinator.URL)...)
		if code != exitOK {
			t.Errorf("%s: exit status %d: %s", args, code, stderr)
		}
		flat := strings.Join(strings.Fields(stdout), " ")
		for _, w := range want {
			if !strings.Contains(flat, w) {
				t.Errorf("%s: %q is not in:\n%s", args, w, stdout)
			}
		}
		old := fmt.Sprintf("what is shown was so %ss ago", stale)
		if got := strings.Contains(stderr, old); got != (stale != "") || !got && stderr != "" {
			t.Errorf("%s: with age %q standard error has %q", args, stale, stderr)
		}
	}
	for _, stale = range []string{"", "0", "42"} {
		wants("agents", "172.17.0.3 alive 44.128.0.1", "172.17.0.4 silent since 2030-01-", "gone from Mesos since 2030-01-")
		wants("agents 172.17.0.3", "Mesos gone from Mesos since", "route clash 10.0.3.0/24 overlaps overlay dual (10.0.0.0/16)",
			"dual 10.0.0.0/24 fd01::/80 10.0.7.0/24 fd01::9:0:0:0/80 10.0.200.7/32 STATUS_OK")
		wants("overlays", "dual enabled, isolated 10.0.0.0/16 in /24 fd01::/64 in /80 2 5, 6 250, plenty 4", "open disabled, isolated 10.9.0.0/16 in /24 - 0 - - 8")
		wants("status", "172.17.0.4 - gone from Mesos since")
	}
	wants("status -o json", `"stale_seconds": 42`, `"isolated": true`)
	stale = ""
	if _, stdout, _ := call(t, "", "status", "-o", "json", "--coordinator", coordinator.URL); strings.Contains(stdout, "stale") {
		t.Errorf("nothing is stale, and it says:\n%s", stdout)
	}
}
