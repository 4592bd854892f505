package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// stored is a coordinator that keeps overlays and reservations as they come,
// and takes whatever it is told.
type stored struct {
	*httptest.Server
	overlays, reservations map[string]string
	// last is the body of the last PUT of an overlay.
	last string
}

func newStored(t *testing.T) *stored {
	c := &stored{overlays: map[string]string{}, reservations: map[string]string{}}
	missing := func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error": {"code": "not_found", "message": "there is none"}}`)
	}
	list := func(w http.ResponseWriter, of map[string]string) {
		var keys, values []string
		for k := range of {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			values = append(values, of[k])
		}
		_, _ = fmt.Fprintf(w, "[%s]", strings.Join(values, ", "))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/overlays", func(w http.ResponseWriter, _ *http.Request) { list(w, c.overlays) })
	mux.HandleFunc("GET /v1/overlays/{name}", func(w http.ResponseWriter, r *http.Request) {
		if o, ok := c.overlays[r.PathValue("name")]; ok {
			_, _ = io.WriteString(w, o)
			return
		}
		missing(w)
	})
	mux.HandleFunc("PUT /v1/overlays/{name}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		c.last = string(body)
		c.overlays[r.PathValue("name")] = c.last
		_, _ = w.Write(body)
	})
	mux.HandleFunc("GET /v1/agents", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"agents": [
			{"id": "a", "ip": "172.17.0.3", "vtep": {"ip": "44.128.0.1/20", "mac": "70:b3:d5:80:00:01"}, "network_config": {}},
			{"id": "b", "ip": "172.17.0.4", "vtep": {"ip": "44.128.0.2/20", "mac": "70:b3:d5:80:00:02"}, "network_config": {}}],
			"network": {"vtep_subnet": "44.128.0.0/20", "overlays": []}, "revision": 9}`)
	})
	mux.HandleFunc("GET /v1/overlays/{name}/addresses", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"address": "10.20.255.9", "agent": "172.17.0.3", "container": "c9", "interface": "eth0", "since": "2030-01-02T03:04:05Z"},
			{"address": "10.20.255.5", "agent": "172.17.0.4", "container": "c5", "interface": "eth0", "since": "2030-01-02T03:04:05Z"}]`)
	})
	mux.HandleFunc("GET /v1/overlays/{name}/reservations", func(w http.ResponseWriter, _ *http.Request) { list(w, c.reservations) })
	const one = "/v1/overlays/{name}/reservations/{address}"
	mux.HandleFunc("GET "+one, func(w http.ResponseWriter, r *http.Request) {
		if kept, ok := c.reservations[r.PathValue("address")]; ok {
			_, _ = io.WriteString(w, kept)
			return
		}
		missing(w)
	})
	mux.HandleFunc("PUT "+one, func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Label string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		addr := r.PathValue("address")
		c.reservations[addr] = fmt.Sprintf(`{"address": %q, "label": %q, "since": "2030-01-02T03:04:05Z"}`, addr, body.Label)
		_, _ = io.WriteString(w, c.reservations[addr])
	})
	mux.HandleFunc("DELETE "+one, func(w http.ResponseWriter, r *http.Request) {
		delete(c.reservations, r.PathValue("address"))
		w.WriteHeader(http.StatusNoContent)
	})
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

// wants runs a command, and wants an exit status and parts of what it prints.
func (c *stored) wants(t *testing.T, code int, args string, want ...string) {
	t.Helper()
	got, stdout, stderr := call(t, "", append(strings.Fields(args), "--coordinator", c.URL)...)
	if got != code {
		t.Errorf("%s: exit status %d, want %d: %s", args, got, code, stderr)
	}
	flat := strings.Join(strings.Fields(stdout+stderr), " ")
	for _, w := range want {
		if !strings.Contains(flat, w) {
			t.Errorf("%s: %q is not in:\n%s%s", args, w, stdout, stderr)
		}
	}
}

// put wants the body of the last PUT.
func (c *stored) put(t *testing.T, want string) {
	t.Helper()
	if c.last != want {
		t.Errorf("the coordinator was told\n%s\nnot\n%s", c.last, want)
	}
}

// TestOverlayFields: every field of an overlay can be said when it is created,
// and changed later without a change to the others.
func TestOverlayFields(t *testing.T) {
	c := newStored(t)
	c.wants(t, exitOK, "overlay create web --subnet 10.20.0.0/16 --prefix 26 --subnet6 fd01:c::/64 --prefix6 80 --max-subnets 4 --docker-prefix 28"+
		" --docker-prefix6 82 --static-subnet 10.20.255.0/24 --static-subnet6 fd01:c:0:0:ffff::/80 --static-takeover 90s --isolated --disabled",
		"state disabled, isolated", "IPv4 10.20.0.0/16 in /26", "Docker's part /28 of each", "fixed addresses 10.20.255.0/24",
		"IPv6 fd01:c::/64 in /80", "Docker's part /82 of each", "fixed addresses fd01:c:0:0:ffff::/80", "takeover after 1m30s", "most an agent 4 subnets")
	full := `"subnet":"10.20.0.0/16","prefix":26,"subnet6":"fd01:c::/64","prefix6":80,%s"docker_prefix":28,"docker_prefix6":82,` +
		`%s"static_subnet":"10.20.255.0/24","static_subnet6":"fd01:c:0:0:ffff::/80","static_takeover":%q}`
	c.put(t, `{"name":"web",`+fmt.Sprintf(full, `"enabled":false,"max_subnets":4,`, `"isolated":true,`, "1m30s"))
	c.wants(t, exitUsage, "overlay create web --subnet 10.21.0.0/16 --prefix 26", "is there already")
	c.wants(t, exitOK, "overlay enable web", "state enabled, isolated")
	c.wants(t, exitOK, "overlay set web --isolated=false --static-takeover 20", "state enabled ", "takeover after 20s")
	c.put(t, `{"name":"web",`+fmt.Sprintf(full, `"max_subnets":4,`, "", "20s"))
	c.wants(t, exitOK, "overlay set web --max-subnets 0 --docker-prefix 0 --docker-prefix6 0 --static-subnet= --static-subnet6=", "Docker's part /27 of each", "most an agent 8 subnets")
	c.put(t, `{"name":"web","subnet":"10.20.0.0/16","prefix":26,"subnet6":"fd01:c::/64","prefix6":80,"static_takeover":"20s"}`)

	before := c.last
	c.wants(t, exitUsage, "overlay set web", "say what to change")
	c.wants(t, exitUsage, "overlay set web --subnet6 fd01", `--subnet6: "fd01" is not an address range`)
	c.wants(t, exitUsage, "overlay set web --static-takeover soon", `--static-takeover: "soon" is not a time`)
	c.wants(t, exitRefused, "overlay set none --isolated", "set overlay none", "there is none")
	c.overlays["going"] = `{"name": "going", "subnet": "10.30.0.0/16", "prefix": 26, "enabled": false, "deleting": true}`
	c.wants(t, exitUsage, "overlay set going --isolated", "is being deleted: dcos-overlayctl overlay enable going")
	c.wants(t, exitUsage, "overlay disable going", "is being deleted")
	c.put(t, before)
	c.wants(t, exitOK, "overlay enable going", "state enabled")
	c.wants(t, exitOK, "overlays web", "overlay web", "IPv6 fd01:c::/64 in /80")
	c.wants(t, exitOK, "overlays web -o yaml", "prefix6: 80")
}

func TestOverlayAddresses(t *testing.T) {
	c := newStored(t)
	c.wants(t, exitOK, "overlay reserve web 10.20.255.5 role=db", "10.20.255.5 role=db")
	c.wants(t, exitOK, "overlay reserve web 10.20.255.7 role -o json", `"label": "role"`)
	c.wants(t, exitUsage, "overlay reserve web ten role=db", `"ten" is not an address`)
	c.wants(t, exitUsage, "overlay reserve web 10.20.255.5", "accepts 3 arg")
	c.wants(t, exitOK, "overlay addresses web",
		"10.20.255.5 role=db 172.17.0.4 c5 eth0 2030-01-02", "10.20.255.7 role - - - -", "10.20.255.9 - 172.17.0.3 c9 eth0 2030-01-02")
	c.wants(t, exitOK, "overlay addresses web -o json", `"addresses": [`, `"reservations": [`)
	c.wants(t, exitOK, "overlay unreserve web 10.20.255.5", "the reservation of 10.20.255.5 of overlay web is ended")
	c.wants(t, exitRefused, "overlay unreserve web 10.20.255.5", "end the reservation of 10.20.255.5", "there is none")
	if len(c.reservations) != 1 {
		t.Errorf("what is reserved at the end: %q", c.reservations)
	}
}

// TestCompletion offers what the coordinator has, and nothing where it does not
// answer.
func TestCompletion(t *testing.T) {
	c := newStored(t)
	c.overlays["dcos"], c.overlays["web"] = `{"name": "dcos"}`, `{"name": "web"}`
	c.reservations["10.20.255.5"] = `{"address": "10.20.255.5", "label": "role"}`
	const agents = "172.17.0.3\n172.17.0.4\n"
	complete := func(args, want string) {
		t.Helper()
		code, stdout, stderr := call(t, "", append([]string{"__complete", "--coordinator", c.URL}, strings.Split(args, " ")...)...)
		offered, _, _ := strings.Cut(stdout, ":")
		if code != exitOK || offered != want {
			t.Errorf("%q is completed by %q, not by %q (exit status %d: %s)", args, offered, want, code, stderr)
		}
	}
	complete("overlays ", "dcos\nweb\n")
	complete("overlay delete ", "dcos\nweb\n")
	complete("overlay disable dcos ", "")
	complete("overlay reserve ", "dcos\nweb\n")
	complete("overlay reserve web ", "")
	complete("overlay unreserve web ", "10.20.255.5\n")
	complete("overlay unreserve web 10.0.0.1 ", "")
	complete("agents 1", agents)
	complete("agents delete ", agents)
	complete("agents delete 172.17.0.3 ", "172.17.0.4\n")
	complete("agents release ", agents)
	complete("agents release 172.17.0.3 ", "")
	complete("agents release --overlay ", "dcos\nweb\n")
	complete("ping 172.17.0.4 ", "172.17.0.3\n")
	complete("ping --family ", "4\n6\nboth\n")
	complete("status --output ", "table\njson\nyaml\n")
	c.Close()
	complete("overlays ", "")
}
