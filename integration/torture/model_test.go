package torture

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// checkTimeout bounds the search for an order of the operations. It takes a
// second where there is one.
const checkTimeout = 20 * time.Second

// slot is one thing that an agent may hold. A claim without an answer may have
// leased something that nobody knows: a held slot of the zero Prefix.
type slot struct {
	held bool
	what netip.Prefix
}

// possession is one agent's lease as the model knows it; a zero at is none.
type possession struct {
	at netip.Addr
	// slots are the VTEP's addresses and the subnets of the overlays, as
	// slotNames names them.
	slots [6]slot
}

// secondRed names the slot of a second subnet of red.
const secondRed = "red's second"

// slotNames tells what overlay a slot belongs to; the VTEP's are of all.
func slotNames() [6]string { return [6]string{"", "", "red", "blue", "blue", secondRed} }

// possess reads a record; false if it has what masterJSON has not.
func possess(a *lease.Agent) (possession, bool) {
	p := possession{at: a.IP}
	put := func(i int, what ...netip.Prefix) bool {
		if len(what) == 1 && what[0].IsValid() {
			p.slots[i] = slot{true, what[0]}
		}
		return len(what) <= 1
	}
	ok := put(0, a.VTEP.IP) && put(1, a.VTEP.IP6)
	for _, o := range a.Overlays {
		switch o.Name {
		case "red":
			n := min(1, len(o.Subnets))
			ok = ok && put(2, o.Subnets[:n]...) && put(5, o.Subnets[n:]...) && len(o.Subnets6) == 0
		case "blue":
			ok = ok && put(3, o.Subnets...) && put(4, o.Subnets6...)
		default:
			ok = false
		}
	}
	return p, ok
}

// needs tells whether a claim of o asks for slot i.
func (o op) needs(i int) bool {
	name := slotNames()[i]
	if name == secondRed {
		return o.more
	}
	return name == "" || slices.Contains(o.overlays, name)
}

// step is the whole promise to one agent: what it holds stays what it is until
// it is released, and a claim adds what it asks for and nothing else.
func step(p possession, o op) (possession, bool) {
	switch o.kind {
	case opClaim:
		return stepClaim(p, o)
	case opRelease, opDelete:
		if o.outcome != refused && p.at == o.ip {
			return possession{}, true
		}
		return p, true
	case opStatus:
		holds := p.at == o.ip
		for i, name := range slotNames() {
			holds = holds && (p.slots[i].held || !slices.Contains(o.overlays, name))
		}
		return p, o.outcome == unknown || holds == (o.outcome == done)
	case opRead:
		if o.record == nil {
			return p, p == possession{}
		}
		seen, ok := possess(o.record)
		return seen, ok && seen.at == p.at && p.admits(seen, func(int) bool { return false })
	}
	return p, false
}

func stepClaim(p possession, o op) (possession, bool) {
	switch o.outcome {
	case refused:
		// There may be nothing left, but not for one who has it.
		missing := p.at != o.ip
		for i := range p.slots {
			missing = missing || o.needs(i) && !p.slots[i].held
		}
		// And nobody moves away with a lease while its old place is alive.
		moves := p.at.IsValid() && p.at != o.ip
		return p, o.code == api.CodeExhausted && missing || o.code == api.CodeConflict && moves
	case unknown:
		p.at = o.ip
		for i := range p.slots {
			p.slots[i].held = p.slots[i].held || o.needs(i)
		}
		return p, true
	}
	seen, ok := possess(o.record)
	return seen, ok && seen.at == o.ip && p.admits(seen, o.needs)
}

// admits tells whether seen is p with what is new in it.
func (p possession) admits(seen possession, isNew func(slot int) bool) bool {
	for i, s := range p.slots {
		switch {
		case !s.held:
			if seen.slots[i].held != isNew(i) {
				return false
			}
		case !seen.slots[i].held || s.what.IsValid() && s.what != seen.slots[i].what:
			return false
		}
	}
	return true
}

// leaseModel judges each agent by itself.
func leaseModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return possession{} },
		Step: func(state, input, _ any) (bool, any) {
			next, ok := step(state.(possession), input.(op))
			return ok, next
		},
	}
}

// tenure is one thing's going to an agent, or its going back.
type tenure struct {
	agent int
	taken bool
	// spare is how often each agent may have lost the thing by a release of
	// unknown outcome that was asked for by the time of this answer.
	spare [agents]int
}

// owner is who has one thing; agent -1 is nobody.
type owner struct {
	agent int
	// lost is how often each agent must have lost it by a release of unknown
	// outcome. These can happen at any time after they were asked for, so it
	// only matters how many there are; as operations of their own they would
	// make the search for an order endless.
	lost [agents]int
}

// ownerModel judges one VTEP address or subnet by itself: it goes to an agent
// only when nobody else has it.
func ownerModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return owner{agent: -1} },
		Step: func(state, input, _ any) (bool, any) {
			o, t := state.(owner), input.(tenure)
			if !t.taken {
				if o.agent == t.agent {
					o.agent = -1
				}
				return true, o
			}
			if o.agent != -1 && o.agent != t.agent {
				o.lost[o.agent]++
				if o.lost[o.agent] > t.spare[o.agent] {
					return false, o
				}
			}
			o.agent = t.agent
			return true, o
		},
	}
}

// interval is when an operation can have happened: one whose outcome is not
// known may yet happen when all others are over.
func (o op) interval() (call, ret int64) {
	if o.outcome == unknown {
		return o.call.UnixNano(), math.MaxInt64
	}
	return o.call.UnixNano(), o.ret.UnixNano()
}

// leaseHistories are the operations by agent.
func leaseHistories(ops []op) map[string][]porcupine.Operation {
	out := map[string][]porcupine.Operation{}
	for _, o := range ops {
		// A status without an answer says and changes nothing of a lease.
		if o.kind == opStatus && o.outcome == unknown {
			continue
		}
		call, ret := o.interval()
		out[idOf(o.agent)] = append(out[idOf(o.agent)], porcupine.Operation{Input: o, Call: call, Return: ret})
	}
	return out
}

// ownerHistories are the tenures by unit. Whoever was told that a unit is his
// has it from then on, and may have lost it by each release of his.
func ownerHistories(ops []op) map[string][]porcupine.Operation {
	out := map[string][]porcupine.Operation{}
	holders := map[string]map[int]bool{}
	var releases, doubts []op
	for _, o := range ops {
		switch {
		case o.kind != opRelease && o.kind != opDelete || o.outcome == refused:
		case o.outcome == unknown:
			doubts = append(doubts, o)
		default:
			releases = append(releases, o)
		}
	}
	for _, o := range ops {
		if o.kind != opClaim || o.outcome != done {
			continue
		}
		call, ret := o.interval()
		t := tenure{agent: o.agent, taken: true}
		for _, d := range doubts {
			if d.call.Before(o.ret) {
				t.spare[d.agent]++
			}
		}
		for _, u := range unitsOf(o.record) {
			out[u] = append(out[u], porcupine.Operation{Input: t, Call: call, Return: ret})
			if holders[u] == nil {
				holders[u] = map[int]bool{}
			}
			holders[u][o.agent] = true
		}
	}
	for u, who := range holders {
		for _, o := range releases {
			if call, ret := o.interval(); who[o.agent] {
				out[u] = append(out[u], porcupine.Operation{Input: tenure{agent: o.agent}, Call: call, Return: ret})
			}
		}
	}
	return out
}

// judge returns those histories for which there is no order that the model
// allows, with why. For the first of them it says it at length.
func judge(model porcupine.Model, histories map[string][]porcupine.Operation) map[string]string {
	bad := map[string]string{}
	for name, h := range histories {
		result := porcupine.CheckOperationsTimeout(model, h, checkTimeout)
		switch result {
		case porcupine.Ok:
			continue
		case porcupine.Illegal:
			bad[name] = "is not linearizable"
		case porcupine.Unknown:
			bad[name] = fmt.Sprintf("was not judged within %s", checkTimeout)
		}
		if len(bad) == 1 {
			bad[name] += ":" + tell(h)
		}
	}
	return bad
}

// tell shows operations in the order of their calls, with times in ms.
func tell(h []porcupine.Operation) string {
	var text strings.Builder
	sorted := slices.SortedFunc(slices.Values(h), func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for _, o := range sorted {
		call := time.Duration(o.Call - sorted[0].Call).Milliseconds()
		ret := "?"
		if o.Return != math.MaxInt64 {
			ret = fmt.Sprint(time.Duration(o.Return - sorted[0].Call).Milliseconds())
		}
		fmt.Fprintf(&text, "\n%7d to %7s: %v", call, ret, o.Input)
	}
	return text.String()
}

// story makes operations that follow each other, a second apart.
func story(ops ...op) []op {
	begin := time.Unix(1_000_000, 0)
	for i := range ops {
		ops[i].call = begin.Add(time.Duration(i) * time.Second)
		ops[i].ret = ops[i].call.Add(500 * time.Millisecond)
		if ops[i].outcome == "" {
			ops[i].outcome = done
		}
		if !ops[i].ip.IsValid() {
			ops[i].ip = agentIPs(ops[i].agent)[0]
		}
		if ops[i].record != nil {
			ops[i].record.IP = ops[i].ip
		}
	}
	return ops
}

// record is a lease of the n-th VTEP and, where red is not 0, the red-th
// subnet of overlay red.
func record(n, red byte) *lease.Agent {
	a := &lease.Agent{VTEP: lease.VTEP{
		IP:  netip.PrefixFrom(netip.AddrFrom4([4]byte{44, 128, 0, n}), 25),
		IP6: netip.MustParsePrefix(fmt.Sprintf("fd01:a::%d/120", n)),
		MAC: network.MAC{0x70, 0xb3, 0xd5, 0x80, 0, n},
	}}
	if red != 0 {
		a.Overlays = []lease.Overlay{{Name: "red", Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{9, 0, red, 0}), 24)}}}
	}
	return a
}

// TestModels: a model that refuses nothing proves nothing.
func TestModels(t *testing.T) {
	red := []string{"red"}
	there := agentIPs(0)[1]
	for name, tt := range map[string]struct {
		ops            []op
		leases, owners bool
	}{
		"a lease's life": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, overlays: red, record: record(1, 1)},
			op{kind: opClaim, record: record(1, 1)},
			op{kind: opStatus, overlays: red},
			op{kind: opRelease},
			op{kind: opStatus, outcome: refused, code: api.CodeNotFound},
			op{kind: opClaim, agent: 1, overlays: red, record: record(1, 1)},
			op{kind: opRead},
		), true, true},
		"a lease that moves": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, ip: there, record: record(1, 0)},
			op{kind: opRelease},
			op{kind: opRead, ip: there, record: record(1, 0)},
		), true, true},
		"another lease for the same agent": {story(
			op{kind: opClaim, record: record(1, 1), overlays: red},
			op{kind: opClaim, record: record(1, 2), overlays: red},
		), false, true},
		"a subnet that nobody asked for": {story(
			op{kind: opClaim, record: record(1, 1)},
		), false, true},
		"a subnet that was asked for and is not there": {story(
			op{kind: opClaim, overlays: red, record: record(1, 0)},
		), false, true},
		"an acknowledged claim that is lost": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opRead},
		), false, true},
		"a release that did nothing": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opRelease},
			op{kind: opRead, record: record(1, 0)},
		), false, true},
		"a claim that may have happened, and has": {story(
			op{kind: opClaim, overlays: red, outcome: unknown},
			op{kind: opRead, record: record(1, 1)},
		), true, true},
		"a claim that may have happened, and has not": {story(
			op{kind: opClaim, overlays: red, outcome: unknown},
			op{kind: opRead},
		), true, true},
		"a release that happens late": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opRelease, outcome: unknown},
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, agent: 1, record: record(1, 0)},
			op{kind: opRead},
		), true, true},
		"a release that was not asked for": {story(
			op{kind: opRelease, outcome: unknown},
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, record: record(2, 0)},
			op{kind: opClaim, record: record(3, 0)},
		), false, true},
		"two owners of one VTEP": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, agent: 1, record: record(1, 0)},
		), true, false},
		"a subnet taken while its owner is told that it has it": {story(
			op{kind: opClaim, overlays: red, record: record(1, 1)},
			op{kind: opDelete, outcome: unknown},
			op{kind: opClaim, agent: 1, overlays: red, record: record(2, 1)},
			op{kind: opClaim, overlays: red, record: record(1, 1)},
		), true, false},
		"a VTEP lost more often than it was released": {story(
			op{kind: opRelease, outcome: unknown},
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, agent: 1, record: record(1, 0)},
			op{kind: opRelease, agent: 1},
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, agent: 2, record: record(1, 0)},
		), true, false},
		"nothing left for one who has it": {story(
			op{kind: opClaim, overlays: red, record: record(1, 1)},
			op{kind: opClaim, overlays: red, outcome: refused, code: api.CodeExhausted},
		), false, true},
		"nothing left for one who needs it": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, overlays: red, outcome: refused, code: api.CodeExhausted},
			op{kind: opRead, record: record(1, 0)},
		), true, true},
		"a move that is refused": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opClaim, ip: there, outcome: refused, code: api.CodeConflict},
			op{kind: opRead, record: record(1, 0)},
		), true, true},
		"a conflict with nobody": {story(
			op{kind: opClaim, ip: there, outcome: refused, code: api.CodeConflict},
		), false, true},
		"an agent that is told to claim again for no reason": {story(
			op{kind: opClaim, record: record(1, 0)},
			op{kind: opStatus, outcome: refused, code: api.CodeNotFound},
		), false, true},
	} {
		if bad := judge(leaseModel(), leaseHistories(tt.ops)); (len(bad) == 0) != tt.leases {
			t.Errorf("%s: the model of a lease says %v, want that it passes: %v", name, bad, tt.leases)
		}
		if bad := judge(ownerModel(), ownerHistories(tt.ops)); (len(bad) == 0) != tt.owners {
			t.Errorf("%s: the model of an owner says %v, want that it passes: %v", name, bad, tt.owners)
		}
	}
}
