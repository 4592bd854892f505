package kernel

import (
	"errors"
	"testing"
)

// TestIPv6: a device's own setting counts, and where there is no device that of
// new ones.
func TestIPv6(t *testing.T) {
	k := newKernel(t)
	for _, step := range []struct {
		device, value string
		lo, absent    bool
	}{
		{"default", "0", true, true},
		{"default", "1", true, false},
		{"lo", "1", false, false},
		{"default", "0", false, true},
		{"all", "1", false, false},
		{"all", "0", true, true},
	} {
		if _, err := ensureSysctl("net/ipv6/conf/"+step.device+"/disable_ipv6", step.value); err != nil {
			t.Fatal(err)
		}
		for device, want := range map[string]bool{"lo": step.lo, "vtep1024": step.absent} {
			err := k.IPv6(device)
			if (err == nil) != want || err != nil && !errors.Is(err, ErrIPv6Off) {
				t.Errorf("after %s=%s: %s: %v", step.device, step.value, device, err)
			}
		}
	}
}
