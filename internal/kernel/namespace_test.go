package kernel

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/netnstest"
	"github.com/dcos/dcos-overlay/internal/network"
)

// TestMain fails when a goroutine is left: the CNI plugin forks nothing off.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open is a Kernel in the current namespace.
func open(t testing.TB) *Kernel {
	t.Helper()
	k, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// newKernel is a Kernel in a fresh namespace.
func newKernel(t testing.TB) *Kernel {
	t.Helper()
	netnstest.Enter(t)
	return open(t)
}

// ip runs the ip command in the thread's namespace and answers with its output.
func ip(t testing.TB, args string) string { t.Helper(); return command(t, "ip "+args) }

// bridge runs the bridge command likewise.
func bridge(t testing.TB, args string) string { t.Helper(); return command(t, "bridge "+args) }

func command(t testing.TB, line string) string { t.Helper(); return netnstest.Run(t, line) }

// contains fails the test unless the text has every one of the parts.
func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}

func lacks(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if strings.Contains(text, p) {
			t.Errorf("%q is in:\n%s", p, text)
		}
	}
}

func link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l
}

func mac(s string) network.MAC {
	m, err := network.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// sampleVTEP is the VTEP of the first agent of a cluster.
func sampleVTEP() dataplane.VTEP {
	return dataplane.VTEP{
		Name: network.VTEPName, VNI: network.VNI, Port: network.VXLANPort, MTU: 1450,
		MAC:       mac("70:b3:d5:80:00:01"),
		Local:     netip.MustParseAddr("192.0.2.1"),
		Addrs:     prefixes("44.128.0.1/16", "fd01:a::1/64"),
		TxOffload: true,
	}
}

// ensureVTEP does it and answers with the repairs, one a line.
func ensureVTEP(t testing.TB, k *Kernel, v dataplane.VTEP) string {
	t.Helper()
	repairs, err := k.EnsureVTEP(context.Background(), v)
	if err != nil {
		t.Fatalf("EnsureVTEP: %v", err)
	}
	return strings.Join(repairs, "\n")
}

func ensureBridge(t testing.TB, k *Kernel, b dataplane.Bridge) string {
	t.Helper()
	repairs, err := k.EnsureBridge(context.Background(), b)
	if err != nil {
		t.Fatalf("EnsureBridge: %v", err)
	}
	return strings.Join(repairs, "\n")
}

// run runs a command whose failure does not matter.
func run(words []string) { _ = exec.Command(words[0], words[1:]...).Run() }
