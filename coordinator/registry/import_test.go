package registry_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/coordinator/registry/registrytest"
	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/masterstate"
	"github.com/dcos/dcos-overlay/internal/network"
)

// sampleState is DC/OS's, of three agents that hold of dcos and dcos6; each
// pair of changes replaces the first by the second everywhere.
func sampleState(t testing.TB, changes ...string) masterstate.State {
	t.Helper()
	data, err := os.ReadFile("../server/testdata/overlay-master-state.json")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("the sample has no %s", changes[i])
		}
		text = strings.ReplaceAll(text, changes[i], changes[i+1])
	}
	s, err := masterstate.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) imported(state masterstate.State, want api.ImportResponse) {
	w.t.Helper()
	got, err := w.Import(w.t.Context(), state, "")
	if err != nil || got != want {
		w.t.Errorf("imported %+v, %v; want %+v", got, err, want)
	}
}

// TestImport: agents get what they had, whatever id they come with, in
// whatever order, and others get what is free.
func TestImport(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	r := w.watch(w.Registry, 0)
	r.expect("snapshot network:3 synced")
	w.imported(sampleState(t), api.ImportResponse{Imported: 3})
	r.expect("set:172.17.0.2 set:172.17.0.4 set:172.17.0.3")
	a, err := w.Agent(t.Context(), ip(2))
	if err != nil || a.ID != "" || a.Config.MesosBridge || a.Config.DockerBridge || !a.Config.AllocateSubnet {
		t.Errorf("the master is %+v, %v", a, err)
	}
	w.imported(sampleState(t), api.ImportResponse{Unchanged: 3})

	check(t, "a new agent", brief(w.claim(9, "new", "dcos", "dcos6")), "172.17.0.9 44.128.0.4/20 fd01:a::4/64 dcos[9.0.3.0/24] dcos6[fd01:b:0:0:3::/80]")
	check(t, "an agent of the state", brief(w.claim(3, "c", "dcos")), "172.17.0.3 44.128.0.3/20 fd01:a::3/64 dcos[9.0.2.0/24] dcos6[fd01:b:0:0:2::/80]")
	check(t, "another", brief(w.claim(4, "d")), "172.17.0.4 44.128.0.2/20 fd01:a::2/64 dcos[9.0.1.0/24] dcos6[fd01:b:0:0:1::/80]")
	w.imported(sampleState(t), api.ImportResponse{Unchanged: 3})
	w.release(2)
	registrytest.Whole(t, w.store.Client)
}

func TestImportRefused(t *testing.T) {
	for _, test := range []struct {
		name    string
		changes []string
		before  func(w *world)
		want    []string
	}{
		{"the slip of DC/OS's documentation", []string{"9.0.1.128/25", "9.0.1.138/25"}, nil, []string{
			"agent 172.17.0.4: overlay dcos: docker_bridge has 9.0.1.138/25, and would have 9.0.1.128/25 here"}},
		{"a subnet of another length and an address of another range", []string{`"9.0.2.0/24"`, `"9.0.2.0/23"`, "44.128.0.1/20", "44.128.0.0/20"}, nil, []string{
			"agent 172.17.0.2: vtep_ip 44.128.0.0/20 is not an address of the VTEPs' range here, 44.128.0.0/20",
			"agent 172.17.0.2: vtep_mac 70:b3:d5:80:00:01 belongs to VTEP 44.128.0.1, and the agent's is 44.128.0.0/20",
			"agent 172.17.0.3: overlay dcos: subnet 9.0.2.0/23 is not one that is leased from this overlay here"}},
		{"one address, one VTEP and one subnet of two agents", []string{"172.17.0.3", "172.17.0.4", "44.128.0.2/20", "44.128.0.1/20", "fd01:a::2/64", "fd01:a::1/64", "70:b3:d5:80:00:02", "70:b3:d5:80:00:01", "fd01:b:0:0:1::/80", "fd01:b::/80", `"fd01:b:0:0:1::/81"`, `"fd01:b::/81"`, `"fd01:b::1:8000:0:0/81"`, `"fd01:b::8000:0:0/81"`}, nil, []string{
			"agent 172.17.0.4: VTEP 44.128.0.1 is agent 172.17.0.2's",
			"agent 172.17.0.4: VTEP fd01:a::1 is agent 172.17.0.2's",
			"agent 172.17.0.4: fd01:b::/80 of overlay dcos6 is agent 172.17.0.2's",
			"agent 172.17.0.4: vtep_mac 70:b3:d5:80:00:01 is agent 172.17.0.2's",
			"agent 172.17.0.4: it is in the state twice"}},
		{"another length of the VTEPs' range", []string{"44.128.0.2/20", "44.128.0.2/21", "fd01:a::3/64", "fd01:c::3/64"}, nil, []string{
			"agent 172.17.0.4: vtep_ip 44.128.0.2/21 is not an address of the VTEPs' range here, 44.128.0.0/20",
			"agent 172.17.0.3: vtep_ip6 fd01:c::3/64 is not an address of the VTEPs' range here, fd01:a::/64"}},
		{"another overlay", []string{`"dcos6"`, `"other"`}, nil, []string{
			`agent 172.17.0.2: there is no overlay "other" here: configure it first`,
			`agent 172.17.0.4: there is no overlay "other" here: configure it first`,
			`agent 172.17.0.3: there is no overlay "other" here: configure it first`}},
		{"a MAC that no device can have", []string{"70:b3:d5:80:00:01", "71:b3:d5:80:00:01"}, nil, []string{
			"agent 172.17.0.2: vtep_mac 71:b3:d5:80:00:01 is not one that a device can have"}},
		{"what is leased here", nil, func(w *world) { w.claim(7, "x", "dcos"); w.claim(3, "y") }, []string{
			"agent 172.17.0.2: VTEP 44.128.0.1 is agent 172.17.0.7's",
			"agent 172.17.0.2: VTEP fd01:a::1 is agent 172.17.0.7's",
			"agent 172.17.0.2: 9.0.0.0/24 of overlay dcos is agent 172.17.0.7's",
			"agent 172.17.0.2: vtep_mac 70:b3:d5:80:00:01 is agent 172.17.0.7's",
			"agent 172.17.0.4: VTEP 44.128.0.2 is agent 172.17.0.3's",
			"agent 172.17.0.4: VTEP fd01:a::2 is agent 172.17.0.3's",
			"agent 172.17.0.4: vtep_mac 70:b3:d5:80:00:02 is agent 172.17.0.3's",
			"agent 172.17.0.3: it is stored already, and holds something else: delete it first, or leave it out"}},
		{"what rests here", nil, func(w *world) { w.claim(7, "x", "dcos"); w.release(7) }, []string{
			"agent 172.17.0.2: VTEP 44.128.0.1 was released lately, and rests",
			"agent 172.17.0.2: VTEP fd01:a::1 was released lately, and rests",
			"agent 172.17.0.2: 9.0.0.0/24 of overlay dcos was released lately, and rests"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, sample, registry.Options{})
			if test.before != nil {
				test.before(w)
			}
			rev := w.Counts().Revision
			_, err := w.Import(t.Context(), sampleState(t, test.changes...), "file")
			wantCode(t, err, api.CodeConflict, "nothing is imported, for the state does not go with what is here:\n"+strings.Join(test.want, "\n"))
			check(t, "revision", w.Counts().Revision, rev)
			_, err = w.Import(t.Context(), masterstate.State{}, "file")
			if err != nil {
				t.Errorf("a file that was refused counts as imported: %v", err)
			}
		})
	}
}

// TestImportOddities: a MAC that is not made by today's rule is kept, and what
// had rested enough is taken.
func TestImportOddities(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	w.claim(7, "x", "dcos")
	w.release(7)
	w.clock.pass(quarantine)
	state := sampleState(t, "70:b3:d5:80:00:02", "02:00:00:00:00:07")
	state.Agents = append(state.Agents, masterstate.Agent{IP: ip(8)})
	w.imported(state, api.ImportResponse{Imported: 3, Empty: 1})
	check(t, "MAC", w.claim(4, "d").VTEP.MAC.String(), "02:00:00:00:00:07")
	_, err := w.Agent(t.Context(), ip(8))
	wantCode(t, err, api.CodeNotFound, "there is no agent 172.17.0.8")
}

func TestImportOnce(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	if _, err := w.Import(t.Context(), sampleState(t), "file"); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), []netip.Addr{ip(2)}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Import(t.Context(), sampleState(t), "file"); !errors.Is(err, registry.ErrImported) {
		t.Errorf("got %v", err)
	}
	check(t, "agents", w.Counts().Agents, 2)
}

// bigState has n agents with a VTEP and a subnet each.
func bigState(t testing.TB, n int) masterstate.State {
	t.Helper()
	var s masterstate.State
	for i := range n {
		vtep := netip.PrefixFrom(netip.AddrFrom4([4]byte{44, 128, byte((i + 1) >> 8), byte(i + 1)}), 20)
		mac, err := network.Network{VTEPMACOUI: "70:B3:D5:00:00:00"}.VTEPMAC(vtep.Addr())
		if err != nil {
			t.Fatal(err)
		}
		s.Agents = append(s.Agents, masterstate.Agent{IP: ip(i + 256), Overlays: []masterstate.Overlay{{
			Info:    network.Overlay{Name: "dcos"},
			Subnet:  netip.PrefixFrom(netip.AddrFrom4([4]byte{9, byte(i >> 8), byte(i), 0}), 24),
			Backend: masterstate.Backend{VXLAN: masterstate.VXLAN{VTEPIP: vtep, VTEPMAC: mac}},
		}}})
	}
	return s
}

func allOf(s masterstate.State) (ips []netip.Addr) {
	for _, a := range s.Agents {
		ips = append(ips, a.IP)
	}
	return ips
}

// TestImportOfMany takes several transactions, beside claims of some of them.
func TestImportOfMany(t *testing.T) {
	w := newWorld(t, sample, registry.Options{})
	const agents = 300
	w.imported(bigState(t, agents), api.ImportResponse{Imported: agents})
	check(t, "agents", len(registrytest.Whole(t, w.store.Client)), agents)
	for _, i := range []int{0, 31, 32, 299} {
		a := w.claim(i+256, fmt.Sprint("id-", i), "dcos")
		check(t, "claim", a.Overlays[0].Subnets[0].String(), fmt.Sprintf("9.%d.%d.0/24", i>>8, i&255))
	}
	// One that came over before the rest is passed over.
	w.imported(bigState(t, agents+50), api.ImportResponse{Imported: 50, Unchanged: agents})
}
