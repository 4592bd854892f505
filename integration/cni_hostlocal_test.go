package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestHostLocalOnOurStore runs host-local's own program on the store that
// dcos-ipam writes, and dcos-ipam on what that has written: each honours the
// other's reservations, and frees them.
func TestHostLocalOnOurStore(t *testing.T) {
	s := newCNIScene(t)
	h := s.A
	const store = "/var/run/dcos/cni/networks"
	ours := func(id string) cniCall {
		return cniCall{Plugin: "dcos-ipam", Verb: "ADD", ID: id, Netns: newNetns(t, h, id), Conf: map[string]any{
			"cniVersion": "1.1.0", "name": "tiny", "type": "bridge", "ipam": map[string]any{"type": "dcos-ipam"}}}
	}
	// The overlay's first subnet, the half of Mesos containers, as the lease
	// has it: 10.66.0.2 to 10.66.0.6.
	theirs := func(id string) cniCall {
		return cniCall{Plugin: "host-local", Verb: "ADD", ID: id, Netns: newNetns(t, h, id), Conf: map[string]any{
			"cniVersion": "1.1.0", "name": "tiny", "type": "bridge", "ipam": map[string]any{
				"type": "host-local", "dataDir": store, "ranges": []any{[]any{map[string]any{"subnet": "10.66.0.0/29", "gateway": "10.66.0.1"}}}}}}
	}
	a, b := ours("a"), theirs("b")
	var got []netip.Addr
	add := func(c cniCall) {
		t.Helper()
		answer := c.ok(t, h)
		got = append(got, addrsOf(resultOf(t, answer.stdout, "1.1.0"))...)
		prev := c.with(map[string]any{"prevResult": prevOf(t, answer)}).verb("CHECK")
		prev.ok(t, h)
		// host-local's CHECK looks for the owner alone.
		other := prev
		other.Plugin = map[string]string{"dcos-ipam": "host-local", "host-local": "dcos-ipam"}[c.Plugin]
		if other.Plugin == "host-local" {
			other.Conf = theirs("check-" + c.ID).with(map[string]any{"prevResult": other.Conf["prevResult"]}).Conf
		} else {
			other.Conf = ours("check-" + c.ID).with(map[string]any{"prevResult": other.Conf["prevResult"]}).Conf
		}
		other.ok(t, h)
	}
	add(a)
	add(b)
	for i := range 3 {
		if i == 1 {
			add(ours(fmt.Sprint("o", i)))
		} else {
			add(theirs(fmt.Sprint("t", i)))
		}
	}
	slices.SortFunc(got, netip.Addr.Compare)
	if text := fmt.Sprint(got); text != "[10.66.0.2 10.66.0.3 10.66.0.4 10.66.0.5 10.66.0.6]" {
		t.Errorf("both together gave %s", text)
	}
	// For both of them there is none left.
	ours("z").fails(t, h, 100, "5 of 5")
	full := theirs("y").run(t, h)
	if full.failure == nil || !strings.Contains(full.failure.Msg, "no IP addresses available") {
		t.Errorf("host-local says %+v", full.failure)
	}
	// Each takes back what the other has given.
	for _, c := range []struct {
		call cniCall
		id   string
	}{{theirs("del1"), "a"}, {ours("del2"), "b"}, {theirs("del3"), "o1"}, {ours("del4"), "t0"}, {ours("del5"), "t2"}} {
		before := len(reservedOn(t, h))
		del := c.call.verb("DEL")
		del.ID = c.id
		del.ok(t, h)
		if now := len(reservedOn(t, h)); now != before-1 {
			t.Errorf("%s: %d addresses are reserved, of %d before", del, now, before)
		}
	}
	// Of what host-local freed our record is left, which the next DEL, or the
	// companion, removes.
	for _, id := range []string{"a", "o1"} {
		c := ours("again" + id).verb("DEL")
		c.ID = id
		c.ok(t, h)
	}
	if left := nothingOf(t, h); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
