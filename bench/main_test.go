package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestSmoke: every measurement works, and its rows are in table and document.
// What they say is not judged here.
func TestSmoke(t *testing.T) {
	docs := t.TempDir()
	before := points()
	var out, log bytes.Buffer
	if err := run([]string{"-smoke", "-docs", docs}, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	text, err := os.ReadFile(docs + "/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"ADD, warm", "DEL, warm", "bare program", "bridge + host-local", "bridge + host-local, ipMasq", "5 parallel ADDs, wall", "5 parallel DELs, wall",
		"first ADD on a host", "dcos-ipam ADD alone", "claims, 64 clients", "peers programmed", "peers looked at, unchanged", "flannel's CNI plugin", "ADD with a port mapping", "DEL with a port mapping", "ADD, warm, isolated, fixed range, further subnet", "ADD, with a fixed address", "plain overlay", "TCP throughput", "TCP processor time for a GB", "TCP round trip", "the same, masquerading",
	} {
		if !strings.Contains(out.String(), row) || !strings.Contains(string(text), row) {
			t.Errorf("no row has %q:\n%s", row, &out)
		}
	}
	for _, name := range []string{"ratios.svg", "times.svg", "data.json"} {
		if fi, err := os.Stat(docs + "/benchmarks/" + name); err != nil || fi.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := points(); !slices.Equal(after, before) {
		t.Errorf("the machine had %q before, and has %q now", before, after)
	}
}

// points are those of the directories that the bench mounts something on, in a
// place of its own, which the machine has.
func points() []string {
	var there []string
	for _, path := range []string{"/var/lib/cni", "/var/lib/dcos-overlay", "/etc/dcos-overlay"} {
		if _, err := os.Stat(path); err == nil {
			there = append(there, path)
		}
	}
	return there
}

func TestOnly(t *testing.T) {
	parts, err := chosen("peers,ipam")
	if err != nil || len(parts) != 2 || parts[0].Name != "peers" {
		t.Errorf("%v, %v", parts, err)
	}
	if _, err := chosen("peer"); err == nil || !strings.Contains(err.Error(), "peers") {
		t.Error(err)
	}
}
