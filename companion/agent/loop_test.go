package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/netnstest"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/peerset"
)

func TestRest(t *testing.T) {
	for _, tt := range []struct {
		took      time.Duration
		repairing int
		want      time.Duration
	}{
		{0, 0, quiet},
		{10 * time.Millisecond, 0, quiet},
		{100 * time.Millisecond, 0, 400 * time.Millisecond},
		{time.Minute, 0, maxRest},
		{0, 1, quiet},
		{0, 2, 2 * quiet},
		{0, 4, 8 * quiet},
		{0, 5, maxRest},
		{0, 1 << 40, maxRest},
	} {
		if got := rest(tt.took, tt.repairing); got != tt.want {
			t.Errorf("rest(%s, %d) is %s, want %s", tt.took, tt.repairing, got, tt.want)
		}
	}
}

func TestPause(t *testing.T) {
	const interval = 10 * time.Second
	for failures, want := range map[int]time.Duration{
		0: interval, 1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: interval, 1 << 40: interval,
	} {
		if got := pause(failures, interval); got != want {
			t.Errorf("pause after %d failures is %s, want %s", failures, got, want)
		}
	}
}

func TestSaid(t *testing.T) {
	var s said
	for i, tt := range []struct {
		key, text string
		news      bool
	}{
		{"a", "", false}, {"a", "bad", true}, {"a", "bad", false}, {"b", "bad", true},
		{"a", "worse", true}, {"a", "", true}, {"a", "", false}, {"a", "bad", true},
	} {
		if got := s.news(tt.key, tt.text); got != tt.news {
			t.Errorf("%d: news(%q, %q) is %v", i, tt.key, tt.text, got)
		}
	}
}

func TestBelow(t *testing.T) {
	for text, want := range map[string]bool{"1024\n": true, "1025\n": false, "1026": false, "": false, "x": false} {
		if got := below(text, 1025); got != want {
			t.Errorf("below(%q, 1025) is %v", text, got)
		}
	}
}

// TestLook finds rules that are gone, and a set of peers that lacks one, which
// drops that one's packets.
func TestLook(t *testing.T) {
	w := newWorld(t)
	w.Host.Conf.VXLANFilter = true
	unlock, err := w.Host.Dir.LockCompanion()
	check(t, err)
	defer unlock()
	defer w.connect()()
	peer := w.self.Clone()
	peer.ID, peer.IP, peer.Overlays = "peer", netip.MustParseAddr("10.0.0.2"), nil
	peer.VTEP.IP, peer.VTEP.IP6, peer.VTEP.MAC = prefix("44.128.0.2/20"), prefix("fd01:a::2/64"), network.MAC{0x70, 0xb3, 0xd5, 0x80, 0, 2}
	w.events <- api.Event{Type: api.EventSet, Agent: peer, Revision: w.rev + 1}
	<-w.Follower.Changed()
	repaired := func() {
		t.Helper()
		check(t, w.pass(t.Context()).Err)
		if why := w.look(t.Context()); why != "" {
			t.Errorf("after a pass %s", why)
		}
	}
	repaired()
	for range 2 {
		check(t, netlink.IpsetFlush(peerset.Name4))
		if why := w.look(t.Context()); why != "ipset DCOS-OVERLAY-PEERS4 holds 0 addresses, not 1" {
			t.Errorf("without the peer's address it says %q", why)
		}
		repaired()
	}
	for _, line := range []string{"iptables -w -F DCOS-OVERLAY-INPUT", "iptables -w -t nat -F POSTROUTING"} {
		netnstest.Run(t, line)
		if why := w.look(t.Context()); !strings.HasPrefix(why, "iptables ") {
			t.Errorf("after %s it says %q", line, why)
		}
		repaired()
	}
}
