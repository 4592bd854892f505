package rtnl

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestReplies feeds the parsers with anything.
func TestReplies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		if len(b) >= 4 && rapid.Bool().Draw(t, "right length") {
			binary.NativeEndian.PutUint32(b, uint32(len(b)))
		}
		_ = eachMessage(b, func(h header, payload []byte) error {
			_ = replyError(h, payload)
			return nil
		})
		h := header{typ: unix.NLMSG_ERROR, flags: unix.NLM_F_ACK_TLVS}
		_ = replyError(h, b)
	})
}

// TestNested: what is nested is read back.
func TestNested(t *testing.T) {
	b := AppendNested(nil, 1, func(b []byte) []byte {
		return AppendAttr32(AppendNested(b, 2, func(b []byte) []byte { return AppendAttr(b, 3, []byte("abc")) }), 4, 5)
	})
	got := map[uint16]string{}
	var walk func(b []byte)
	walk = func(b []byte) {
		for typ, value := range Attrs(b) {
			if typ < 3 {
				walk(value)
			} else {
				got[typ] = string(value)
			}
		}
	}
	walk(b)
	if len(b)%4 != 0 || got[3] != "abc" || len(got[4]) != 4 {
		t.Errorf("%v from %x", got, b)
	}
}
