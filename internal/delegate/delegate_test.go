package delegate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// script is a plugin that does what body says.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	t.Setenv("WHO", "me")
	t.Setenv("CNI_COMMAND", "DEL")
	out, err := Call{
		Program: script(t, `echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $CNI_PATH $WHO"; cat`),
		Conf:    []byte("stdin"), Verb: "ADD", ContainerID: "c", Netns: "/n", IfName: "eth0", Args: "A=1", CNIPath: "/p",
	}.Run(t.Context())
	if err != nil || string(out) != "ADD c /n eth0 A=1 /p me\nstdin" {
		t.Errorf("got %q, %v", out, err)
	}
	for body, want := range map[string]Failure{
		`echo '{"code": 11, "msg": "later", "details": "why"}'; exit 1`: {"later", "why"},
		`echo oops >&2; echo more >&2; echo this; exit 3`:               {"exit status 3: oops", "more\n this"},
		`exit 1`:          {"exit status 1", ""},
		`kill -9 $$`:      {"signal: killed", ""},
		`echo {}; exit 1`: {"exit status 1: {}", ""},
	} {
		_, err = Call{Program: script(t, body)}.Run(t.Context())
		var failed *Failure
		if !errors.As(err, &failed) || *failed != want {
			t.Errorf("%s: got %#v, want %#v", body, err, want)
		}
	}
	if _, err := (Call{Program: "/nowhere/plugin"}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestDeadlineEndsChildrenToo: the plugin's child holds its output open.
func TestDeadlineEndsChildrenToo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Call{Program: script(t, "sleep 600 & sleep 600")}.Run(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v after %s", err, time.Since(began))
	}
}

func TestResult(t *testing.T) {
	for conf, want := range map[string]string{`{"cniVersion": "1.0.0"}`: "1.0.0", `{"cniVersion": "0.3.1"}`: "0.3.1"} {
		result, err := Call{Program: script(t, `echo '{"ips": [{"version": "4", "address": "9.0.0.2/24"}]}'`), Conf: []byte(conf)}.Result(t.Context())
		if err != nil || result.Version() != want {
			t.Errorf("a result without version, for %s: %v, %v", conf, result, err)
		}
	}
	result, err := Call{Program: script(t, `echo '{"cniVersion": "0.2.0", "ip4": {"ip": "9.0.0.2/24"}}'`), Conf: []byte(`{"cniVersion": "1.0.0"}`)}.Result(t.Context())
	if err != nil || result.Version() != "0.2.0" {
		t.Errorf("an older result: %v, %v", result, err)
	}
	for _, out := range []string{"", "nonsense", `{"cniVersion": "9.9.9"}`} {
		if _, err := (Call{Program: script(t, `echo '`+out+`'`), Conf: []byte(`{}`)}).Result(t.Context()); err == nil {
			t.Errorf("%q is a result", out)
		}
	}
}

func TestFind(t *testing.T) {
	path := script(t, "")
	dir := filepath.Dir(path)
	if got, err := Find("plugin", "/nowhere:"+dir); err != nil || got != path {
		t.Errorf("got %s, %v", got, err)
	}
	for _, cniPath := range []string{"", "/nowhere", filepath.Dir(dir)} {
		if got, err := Find("plugin", cniPath); err == nil {
			t.Errorf("in %q: %s", cniPath, got)
		}
	}
}
