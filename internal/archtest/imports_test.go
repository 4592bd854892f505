package archtest

import (
	"slices"
	"testing"

	"github.com/dcos/dcos-overlay/internal/errand"
)

// TestPluginsStayLight: a plugin is started for every container, and what it
// is linked with is part of each start. An etcd client with gRPC costs 4 ms, HTTP
// with TLS half a millisecond. What asks coordinators is another program.
func TestPluginsStayLight(t *testing.T) {
	heavy := []string{
		"go.etcd.io", "google.golang.org/grpc", "google.golang.org/protobuf",
		"github.com/moby", "github.com/docker", "github.com/containerd",
		"github.com/prometheus", "github.com/spf13", "go.uber.org/zap",
		"go.yaml.in", "gopkg.in", "sigs.k8s.io/yaml",
	}
	plugins, g := depsOf(t, "./plugins/...")
	if len(plugins) < 3 {
		t.Fatalf("go list found %d plugins only", len(plugins))
	}
	for _, p := range plugins {
		heavy := heavy
		if !under(p.rel(), "plugins/"+errand.Program) {
			heavy = append(slices.Clone(heavy), "net/http", "crypto/tls")
		}
		for _, h := range heavy {
			if c := g.chain(p.ImportPath, func(path string) bool { return under(path, h) }); c != nil {
				t.Errorf("a plugin must not be linked with %s: %s", h, arrows(c))
			}
		}
	}
}

// TestOnlyTheCoordinatorSpeaksToEtcd: no agent needs etcd's credentials.
func TestOnlyTheCoordinatorSpeaksToEtcd(t *testing.T) {
	found := false
	for _, p := range ours(t) {
		for _, i := range p.Imports {
			switch {
			case !under(i, "go.etcd.io"):
			case p.part() == "coordinator":
				found = true
			case p.part() == "integration", p.part() == "bench":
				// A cluster to test against, its history to judge, and what it
				// can do at most.
			default:
				t.Errorf("%s imports %s: only the coordinator speaks to etcd", p.rel(), i)
			}
		}
	}
	if !found {
		t.Error("not even the coordinator imports etcd: this test looks for the wrong path")
	}
}

// TestPartsStandAlone: what two parts share is in internal, so that each of
// them can be read, and replaced, without the others.
func TestPartsStandAlone(t *testing.T) {
	for _, p := range ours(t) {
		if p.part() == "integration" || p.part() == "bench" {
			continue // it plays them all together
		}
		for _, i := range p.Imports {
			rel, ok := within(i)
			if ok && !under(rel, p.part(), "internal") {
				t.Errorf("%s imports %s: what they share belongs in internal", p.rel(), rel)
			}
		}
	}
}

// TestFlagsAreForMains: a package that reads flags can't be used twice, and
// hides an input from its caller.
func TestFlagsAreForMains(t *testing.T) {
	found := false
	for _, p := range ours(t) {
		for _, i := range p.Imports {
			switch {
			case !under(i, "flag", "github.com/spf13"):
			case p.Name == "main":
				found = true
			default:
				t.Errorf("%s imports %s: only a main package has flags", p.rel(), i)
			}
		}
	}
	if !found {
		t.Error("no main package has flags: this test looks for the wrong paths")
	}
}

// pure are the packages of rules without input and output: from the same
// arguments they give the same results.
func pure() []string {
	return []string{
		"internal/network", "internal/network/networkfile", "internal/lease", "internal/dataplane",
		"internal/plainjson", "internal/masterstate", "internal/api", "coordinator/allocator",
	}
}

// TestPurePackages: the rules can be tested as tables because nothing in them
// looks at a file, a clock, the network or the kernel.
func TestPurePackages(t *testing.T) {
	libraries := []string{"go4.org/netipx", "go.yaml.in/yaml/v3"}
	effects := []string{"os", "syscall", "log", "net/http", "net/rpc", "net/smtp", "io/ioutil", "context", "crypto/rand", "math/rand", "unsafe", "plugin", "testing"}
	seen := 0
	for _, p := range ours(t) {
		if !isOne(p.rel(), pure()) {
			continue
		}
		seen++
		for _, i := range p.Imports {
			rel, inModule := within(i)
			switch {
			case inModule && !isOne(rel, pure()):
				t.Errorf("%s is pure and imports %s, which is not", p.rel(), rel)
			case !inModule && isLibrary(i) && !isOne(i, libraries):
				t.Errorf("%s is pure and imports %s: allowed are %s", p.rel(), i, quoted(libraries))
			case under(i, effects...):
				t.Errorf("%s is pure and imports %s", p.rel(), i)
			}
		}
		for _, f := range parse(t, p, p.GoFiles) {
			for _, use := range f.uses("net", "time") {
				if !isOne(use.name, []string{
					"net.HardwareAddr", "net.ParseMAC", "net.IP", "net.IPNet", "net.IPMask", "net.CIDRMask",
					"time.Time", "time.Duration", "time.ParseDuration", "time.RFC3339", "time.Second", "time.Minute", "time.Hour",
				}) {
					t.Errorf("%s: %s in a pure package", use.at, use.name)
				}
			}
		}
	}
	if seen != len(pure()) {
		t.Errorf("there are %d of the %d pure packages: correct the list", seen, len(pure()))
	}
}
