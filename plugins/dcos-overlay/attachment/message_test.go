package attachment

import (
	"net/netip"
	"testing"
)

func TestBroadcast(t *testing.T) {
	for p, want := range map[string]string{
		"9.0.1.2/25": "9.0.1.127", "9.0.1.130/25": "9.0.1.255", "10.40.0.18/28": "10.40.0.31", "10.0.0.1/8": "10.255.255.255", "10.40.0.2/30": "10.40.0.3",
	} {
		if got, _ := netip.AddrFromSlice(broadcast(netip.MustParsePrefix(p))); got.String() != want {
			t.Errorf("the broadcast address of %s is %s, want %s", p, got, want)
		}
	}
}
