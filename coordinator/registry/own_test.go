package registry

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// anAgent draws a record, with names that JSON has to escape.
func anAgent(t *rapid.T) *lease.Agent {
	a := &lease.Agent{
		ID: rapid.StringN(1, 20, -1).Draw(t, "id"), IP: netip.AddrFrom4([4]byte{172, 17, 0, 1}),
		VTEP:   lease.VTEP{IP: netip.MustParsePrefix("44.128.0.1/20"), MAC: network.MAC{0x70, 0xb3, 0xd5, 0x80, 0, 1}},
		Config: lease.DefaultNetworkConfig(),
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "overlays") {
		o := lease.Overlay{Name: rapid.SampledFrom([]string{"dcos", "a<b>", "é\u2028"}).Draw(t, "name"), State: lease.State{Status: lease.StatusConfiguring}}
		o.Subnets = append(o.Subnets, netip.PrefixFrom(netip.AddrFrom4([4]byte{9, 0, byte(i), 0}), 24))
		if rapid.Bool().Draw(t, "IPv6") {
			o.Subnets6 = append(o.Subnets6, netip.MustParsePrefix("fd01:b::/80"))
		}
		a.Overlays = append(a.Overlays, o)
	}
	return a
}

// TestGrantJSON: the answer that is put together by hand is what would be
// encoded.
func TestGrantJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := network.Network{VTEPSubnet: netip.MustParsePrefix("44.128.0.0/20"), VTEPMACOUI: "70:B3:D5:00:00:00"}
		for _, name := range []string{"dcos", "a<b>"}[:rapid.IntRange(0, 2).Draw(t, "overlays of the network")] {
			n.Overlays = append(n.Overlays, network.Overlay{Name: name, Subnet: netip.MustParsePrefix("9.0.0.0/8"), Prefix: 24})
		}
		resp := api.ClaimResponse{
			Agent: *anAgent(t), Network: n, Revision: rapid.Int64().Draw(t, "revision"),
			Deleting: rapid.SliceOfN(rapid.SampledFrom([]string{"dcos", "a<b>"}), 0, 2).Draw(t, "deleting"),
		}
		encode := func(v any) []byte {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		g := Grant{ClaimResponse: resp, record: encode(resp.Agent), network: encode(resp.Network)}
		got, err := g.AppendJSON([]byte("#"))
		if want := encode(resp); err != nil || string(got) != "#"+string(want) {
			t.Fatalf("got %s (%v), want %s", got, err, want)
		}
	})
}

// TestOwnRecord: a record that a group writes is taken in as it is when the
// watch brings it, and is what would have been read; a different one is read.
func TestOwnRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anAgent(t)
		p := &plan{agent: a, writes: true}
		p.record = p.put(keyAgent(a.IP), a)
		group := &together{plans: []*plan{p}}
		own, plain := newIndex(), newIndex()
		group.expect(own)
		value := p.record
		other := rapid.Bool().Draw(t, "another was first")
		if other {
			value = bytes.Replace(value, []byte(`"mesos_bridge":true`), []byte(`"mesos_bridge":false`), 1)
		}
		for _, x := range []*index{own, plain} {
			if _, err := x.apply(keyValue{key: keyAgent(a.IP), value: value, rev: 7}); err != nil {
				t.Fatal(err)
			}
		}
		got, want := own.agents[a.IP], plain.agents[a.IP]
		if !reflect.DeepEqual(got.Agent, want.Agent) || string(got.line) != string(want.line) || got.rev != want.rev {
			t.Fatalf("the index has %s, want %s", got.line, want.line)
		}
		if taken := got.Agent == a; taken == other {
			t.Fatalf("the record was taken as it is: %v", taken)
		}
		if len(own.own) != 0 {
			t.Fatalf("%d records are still expected", len(own.own))
		}
		group.expect(own)
		group.forgo(own)
		if len(own.own) != 0 {
			t.Fatal("a group that was not written is still expected")
		}
	})
}
