package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/internal/api"
)

// TestHostRoutesAtStart: an overlay that comes by the configuration file is
// made, and the log names each agent that has a route of its own into it.
func TestHostRoutesAtStart(t *testing.T) {
	binary := build(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "network.json")
	const network = `{"vtep_subnet": "44.128.0.0/20", "vtep_mac_oui": "70:B3:D5:00:00:00",
		"overlays": [{"name": "dcos", "subnet": "9.0.0.0/8", "prefix": 24}%s]}`
	write := func(more string) {
		t.Helper()
		if err := os.WriteFile(config, fmt.Appendf(nil, network, more), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--data-dir", filepath.Join(dir, "data"), "--config", config}
	write("")
	p := start(t, binary, args...)
	routes := make([]netip.Prefix, 0, maxClashes+2)
	for i := range cap(routes) {
		routes = append(routes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20, byte(i), 0}), 24))
	}
	for ip, routes := range map[string][]netip.Prefix{
		"127.0.1.1": {netip.MustParsePrefix("10.20.5.0/24"), netip.MustParsePrefix("192.168.0.0/16")},
		"127.0.1.2": nil,
		"127.0.1.3": routes,
	} {
		a := agent{ip: netip.MustParseAddr(ip)}
		c := a.client(t, p.base)
		defer c.Close()
		if err := a.claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := c.Report(t.Context(), a.ip, api.StatusRequest{HostRoutes: routes}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	const message = "a host routes addresses of the network by itself"
	if log := p.log.String(); strings.Contains(log, message) {
		t.Errorf("it warns where nothing clashes:\n%s", log)
	}

	write(`, {"name": "web", "subnet": "10.20.0.0/16", "prefix": 26}`)
	p = start(t, binary, args...)
	reader := agent{ip: netip.MustParseAddr("127.0.1.2")}
	c := reader.client(t, p.base)
	defer c.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		overlay, err := c.Overlay(t.Context(), "web")
		if err == nil && overlay.Name == "web" {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log := p.log.String()
	if n := strings.Count(log, message); n != maxClashes {
		t.Errorf("it names %d routes, not %d:\n%s", n, maxClashes, log)
	}
	for _, want := range []string{
		`agent=127.0.1.1 route=10.20.5.0/24 overlaps="overlay web (10.20.0.0/16)"`,
		`agent=127.0.1.3 route=10.20.0.0/24 overlaps="overlay web (10.20.0.0/16)"`,
		"more=3",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in:\n%s", want, log)
		}
	}
	if strings.Contains(log, "192.168.0.0") {
		t.Errorf("it warns of a route that overlaps nothing:\n%s", log)
	}
}
