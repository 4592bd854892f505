package host

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/lease"
)

// TestCompareFixed: one that the lease lists and a container has; one that it
// has by another container; one that nobody here has.
func TestCompareFixed(t *testing.T) {
	addr := netip.MustParseAddr
	o := lease.Overlay{Name: "web", Addresses: []lease.Address{
		{IP: addr("10.0.255.1"), Container: "a", Interface: "eth0"},
		{IP: addr("10.0.255.2"), Container: "before", Interface: "eth0"},
		{IP: addr("10.0.255.3"), Container: "gone", Interface: "eth0"},
	}}
	here := []ipam.Entry{
		{Addr: addr("10.0.255.1"), Owner: ipam.Owner{ContainerID: "a", IfName: "eth0"}},
		{Addr: addr("10.0.255.2"), Owner: ipam.Owner{ContainerID: "b", IfName: "eth0"}},
	}
	want, problems := compareFixed(o, here)
	if !slices.Equal(want, []netip.Addr{addr("10.0.255.1")}) {
		t.Errorf("routed are to be %s", want)
	}
	if says := []string{
		"container b has 10.0.255.2 of overlay web, which this agent does not hold",
		"this agent holds 10.0.255.2 of overlay web for container before, which does not have it",
		"this agent holds 10.0.255.3 of overlay web for container gone, which does not have it",
	}; !slices.Equal(problems, says) {
		t.Errorf("it says %q", problems)
	}
}
