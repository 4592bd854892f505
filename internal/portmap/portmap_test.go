package portmap

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/dcos/dcos-overlay/internal/cniconf"
)

func TestFind(t *testing.T) {
	empty, full := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(full, Name), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Find(empty + ":" + full); err != nil || got != filepath.Join(full, Name) {
		t.Errorf("got %q, %v", got, err)
	}
	var missing *NotFoundError
	for _, path := range []string{"", empty, ".", filepath.Join(full, "portmap")} {
		if _, err := Find(path); !errors.As(err, &missing) || !strings.Contains(err.Error(), path) {
			t.Errorf("in %q: %v", path, err)
		}
	}
}

// TestCalls: what portmap is told, by one that writes it down.
func TestCalls(t *testing.T) {
	dir := t.TempDir()
	told := filepath.Join(dir, "told")
	body := "#!/bin/sh\necho \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_PATH\" >" + told + "\ncat >>" + told + "\n"
	if err := os.WriteFile(filepath.Join(dir, Name), []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
	m := Mapping{
		Program: filepath.Join(dir, Name), CNIPath: dir, Network: "dcos", ContainerID: "c1", IfName: "eth0", Netns: "/ns",
		Ports: []cniconf.Port{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}},
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	for _, tt := range []struct {
		version, want string
		run           func(Mapping) error
		line          string
		prev          bool
		ports         int
	}{
		{"0.2.0", "0.4.0", func(m Mapping) error { return m.Add(t.Context(), result) }, "ADD c1 eth0 /ns " + dir, true, 1},
		{"1.1.0", "1.1.0", func(m Mapping) error { return m.Check(t.Context(), result) }, "CHECK c1 eth0 /ns " + dir, true, 1},
		{"1.0.0", "1.0.0", func(m Mapping) error { return m.Remove(t.Context()) }, "DEL c1 eth0 /ns " + dir, false, 1},
		// portmap does nothing for no ports, and these are not known any more.
		{"", "0.4.0", func(m Mapping) error { m.Ports = nil; return m.Remove(t.Context()) }, "DEL c1 eth0 /ns " + dir, false, 1},
	} {
		m.Version = tt.version
		if err := tt.run(m); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(told)
		if err != nil {
			t.Fatal(err)
		}
		line, text, _ := strings.Cut(string(data), "\n")
		var conf struct {
			CNIVersion, Name, Type string
			PrevResult             map[string]any
			RuntimeConfig          struct{ PortMappings []cniconf.Port }
		}
		if err := json.Unmarshal([]byte(text), &conf); err != nil {
			t.Fatal(err)
		}
		if line != tt.line || conf.CNIVersion != tt.want || conf.Name != "dcos" || conf.Type != Name ||
			(conf.PrevResult != nil) != tt.prev || len(conf.RuntimeConfig.PortMappings) != tt.ports {
			t.Errorf("told %s", data)
		}
	}
}
