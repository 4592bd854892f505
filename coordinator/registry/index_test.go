package registry

import (
	"net/netip"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestDecodeIP: an address is read as JSON has it, and not only as it is
// written here.
func TestDecodeIP(t *testing.T) {
	for text, want := range map[string]string{
		`"10.0.0.1"`:      "10.0.0.1",
		`"fd00::1"`:       "fd00::1",
		` "10.0.0.1" `:    "10.0.0.1",
		`"10.0.0\u002e1"`: "10.0.0.1",
		`""`:              "invalid IP",
		`null`:            "invalid IP",
		`10.0.0.1`:        "error",
		`"10.0.0.1`:       "error",
		`"`:               "error",
		`"10.0.0"`:        "error",
	} {
		ip, err := decodeIP(keyValue{key: "/ids/a", value: []byte(text)})
		got := ip.String()
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	if ip, err := decodeIP(keyValue{}); ip.IsValid() || err != nil {
		t.Errorf("a key that is gone is %s, %v", ip, err)
	}
	p := plan{}
	for _, want := range []string{"10.0.0.1", "fd00::1"} {
		p.putIP("/ids/a", netip.MustParseAddr(want))
		if ip, err := decodeIP(keyValue{value: p.ops[len(p.ops)-1].ValueBytes()}); ip.String() != want || err != nil {
			t.Errorf("what is written for %s is read as %s, %v", want, ip, err)
		}
	}
}

// TestConditionCmp: the comparison of one key is what etcd's client makes.
func TestConditionCmp(t *testing.T) {
	for _, rev := range []int64{0, 7} {
		made := condition{key: "/agents/10.0.0.1", rev: rev}.cmp()
		other := clientv3.Compare(clientv3.ModRevision("/agents/10.0.0.1"), "=", rev)
		if got, want := made.GetCompare().String(), other.GetCompare().String(); got != want {
			t.Errorf("the comparison is %s, want %s", got, want)
		}
	}
}
