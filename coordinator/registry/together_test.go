package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/dcos/dcos-overlay/internal/api"
)

// TestTogether: whatever calls wait, each is in the group, or is told that it
// is not, or waits for the next one; and no plan of a group writes what
// another writes or compares.
func TestTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 12).Draw(t, "most")
		r := New(nil, Options{MaxTxnOps: most})
		keys := rapid.IntRange(2, 30).Draw(t, "keys")
		key := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint("k", rapid.IntRange(1, keys).Draw(t, "key")) })
		members := make([]*member, rapid.IntRange(1, 20).Draw(t, "members"))
		plans := map[*member]*plan{}
		for i := range members {
			p := &plan{}
			for _, k := range rapid.SliceOfNDistinct(key, 0, min(2, keys), rapid.ID).Draw(t, "compared") {
				p.unchanged(k, 1)
			}
			for _, k := range rapid.SliceOfNDistinct(key, 0, min(2, keys), rapid.ID).Draw(t, "written") {
				p.put(k, i)
			}
			var refusal error
			if rapid.IntRange(0, 9).Draw(t, "refused") == 0 {
				refusal = fail(api.CodeConflict, "no")
			}
			m := &member{ctx: context.Background(), verdict: make(chan verdict, 1), left: rapid.IntRange(0, 9).Draw(t, "left") == 0}
			m.draft = func(*index) (*plan, error) { return p, refusal }
			members[i], plans[m] = m, p
		}
		group, rest := r.assemble(members)

		seen := map[*member]int{}
		for _, m := range members {
			if m.left {
				seen[m]++
			}
			seen[m] += len(m.verdict)
		}
		for _, m := range append(append(group.members, group.later...), rest...) {
			if !m.left {
				seen[m]++
			}
		}
		for i, m := range members {
			if seen[m] != 1 {
				t.Fatalf("call %d is in %d places", i, seen[m])
			}
		}
		writer, size := map[string]*member{}, 0
		for i, m := range group.members {
			if group.plans[i] != plans[m] {
				t.Fatalf("the plan of call %d is another's", i)
			}
			size += len(plans[m].ops)
			for _, op := range plans[m].ops {
				if other := writer[string(op.KeyBytes())]; other != nil {
					t.Fatalf("%s is written twice", op.KeyBytes())
				}
				writer[string(op.KeyBytes())] = m
			}
		}
		for _, m := range group.members {
			for _, c := range plans[m].cmps {
				if w := writer[c.key]; w != nil && w != m {
					t.Fatalf("%s is written by one and compared by another", c.key)
				}
			}
		}
		if len(group.members) == 0 {
			return
		}
		whole := group.whole()
		if len(whole.ops) != size {
			t.Fatalf("the group has %d operations, its members have %d", len(whole.ops), size)
		}
		if len(group.members) > 1 && (len(whole.ops) > most || len(whole.cmps) > most) {
			t.Fatalf("%d operations and %d comparisons, of %d", len(whole.ops), len(whole.cmps), most)
		}
	})
}

// TestLineOfARecord: what is put together by hand is what encode makes.
func TestLineOfARecord(t *testing.T) {
	x := newIndex()
	event, err := x.apply(keyValue{key: dirAgents + "172.17.0.1", value: []byte(`{"id": "<a>", "vtep": {"ip": "44.128.0.1/20", "mac": "70:b3:d5:80:00:01"}}`), rev: 7})
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(event.Agent)
	if err != nil {
		t.Fatal(err)
	}
	e := x.agents[event.Agent.IP]
	if string(e.record()) != string(record) {
		t.Errorf("the record is %s, not %s", e.record(), record)
	}
	for _, rev := range []int64{0, 7} {
		event.Revision = rev
		want, err := encode(*event)
		if err != nil {
			t.Fatal(err)
		}
		got, err := encodeWith(*event, x.recordOf)
		if err != nil || string(got) != string(want) || rev == 0 && string(e.line) != string(want) {
			t.Errorf("got %s and %s (%v), want %s", got, e.line, err, want)
		}
	}
}
