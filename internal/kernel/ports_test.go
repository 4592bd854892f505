package kernel

import (
	"errors"
	"slices"
	"testing"
)

func TestPorts(t *testing.T) {
	k := newKernel(t)
	ctx := t.Context()
	ensureBridge(t, k, sampleBridge())
	ip(t, "link add br-other type bridge")
	for _, name := range []string{"dov1", "dov2", "dov3"} {
		ip(t, "link add "+name+" type veth peer name in-"+name)
		ip(t, "link set in-"+name+" master br-other")
	}
	ip(t, "link set dov3 master br-other")
	ip(t, "link set dov1 up")
	loose, err := k.LooseVeths(ctx)
	slices.Sort(loose)
	if want := []string{"dov1", "dov2"}; err != nil || !slices.Equal(loose, want) {
		t.Errorf("loose are %q, %v; want %q", loose, err, want)
	}
	done, err := k.PutOnBridge(ctx, "m-dcos", []string{"dov1", "dov2", "dov3", "gone", "lo"})
	if want := []string{"dov1", "dov2"}; err != nil || !slices.Equal(done, want) {
		t.Errorf("it put %q on it, %v; want %q", done, err, want)
	}
	for _, name := range done {
		contains(t, bridge(t, "-d link show dev "+name), "master m-dcos", "hairpin on")
	}
	contains(t, bridge(t, "link show dev dov3"), "master br-other")
	contains(t, ip(t, "-o link show dev dov1"), ",UP")
	lacks(t, ip(t, "-o link show dev dov2"), ",UP")
	if loose, err := k.LooseVeths(ctx); err != nil || len(loose) > 0 {
		t.Errorf("loose are %q after that, %v", loose, err)
	}
	if _, err := k.PutOnBridge(ctx, "m-none", done); !errors.Is(err, ErrNoDevice) {
		t.Errorf("without bridge: %v", err)
	}
}
