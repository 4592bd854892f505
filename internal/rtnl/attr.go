package rtnl

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Align rounds up to netlink's alignment.
func Align(n int) int { return (n + 3) &^ 3 }

// pad brings b to netlink's alignment.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// AppendAttr appends an attribute (struct rtattr and its value).
func AppendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return pad(append(b, value...))
}

// AppendAttr32 is AppendAttr with a number.
func AppendAttr32(b []byte, typ uint16, value uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+4))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return binary.NativeEndian.AppendUint32(b, value)
}

// AppendNested appends an attribute whose value is what fill appends.
func AppendNested(b []byte, typ uint16, fill func([]byte) []byte) []byte {
	at := len(b)
	b = fill(AppendAttr(b, typ, nil))
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
	return b
}

// Attrs are the types and values of a run of attributes. It ends where the
// run is cut short.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(typ, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min(Align(size), len(b)):]
		}
	}
}
