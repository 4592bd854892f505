package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/dataplane"
	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// Attributes of neighbour messages (linux/neighbour.h).
const (
	ndaDst     = 1
	ndaLLAddr  = 2
	ndaPort    = 6
	ndaVNI     = 7
	ndaIfindex = 8
	ndaSrcVNI  = 11
	ndaNHID    = 13
)

// Sizes of struct ndmsg and struct rtmsg (linux/neighbour.h, rtnetlink.h).
const (
	sizeofNdMsg = 12
	sizeofRtMsg = unix.SizeofRtMsg
)

// ntfSelf says that a forwarding entry is the VXLAN device's own, not a
// bridge's; nudNoARP and nudPermanent that it does not age.
const (
	ntfSelf      = 0x02
	nudNoARP     = 0x40
	nudPermanent = 0x80
)

// rtMsg is the fixed part of a route message.
type rtMsg struct {
	family, dstLen, tos, table, protocol, scope, typ uint8
	flags                                            uint32
}

func (m rtMsg) append(b []byte) []byte {
	b = append(b, m.family, m.dstLen, 0, m.tos, m.table, m.protocol, m.scope, m.typ)
	return binary.NativeEndian.AppendUint32(b, m.flags)
}

func parseRtMsg(b []byte) rtMsg {
	return rtMsg{
		family: b[0], dstLen: b[1], tos: b[3], table: b[4], protocol: b[5], scope: b[6], typ: b[7],
		flags: binary.NativeEndian.Uint32(b[8:]),
	}
}

// ndMsg is the fixed part of a neighbour message.
type ndMsg struct {
	family uint8
	index  uint32
	state  uint16
	flags  uint8
}

func (m ndMsg) append(b []byte) []byte {
	b = append(b, m.family, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, m.index)
	b = binary.NativeEndian.AppendUint16(b, m.state)
	return append(b, m.flags, 0)
}

func parseNdMsg(b []byte) ndMsg {
	return ndMsg{
		family: b[0],
		index:  binary.NativeEndian.Uint32(b[4:]),
		state:  binary.NativeEndian.Uint16(b[8:]),
		flags:  b[10],
	}
}

// appendRoute appends the body of a message about a route of ours; m has what
// its entry does not tell.
func appendRoute(b []byte, e dataplane.RouteEntry, index uint32, m rtMsg) []byte {
	m.family, m.dstLen = familyOf(e.Dst.Addr()), uint8(e.Dst.Bits())
	m.table, m.protocol, m.typ = unix.RT_TABLE_MAIN, RouteProtocol, unix.RTN_UNICAST
	b = appendAddr(m.append(b), unix.RTA_DST, e.Dst.Addr())
	b = appendAddr(b, unix.RTA_GATEWAY, e.Gateway)
	b = rtnl.AppendAttr32(b, unix.RTA_OIF, index)
	return rtnl.AppendAttr32(b, unix.RTA_PRIORITY, e.Metric)
}

func appendNeigh(b []byte, e dataplane.NeighEntry, index uint32) []byte {
	b = ndMsg{family: familyOf(e.IP), index: index, state: nudPermanent}.append(b)
	return rtnl.AppendAttr(appendAddr(b, ndaDst, e.IP), ndaLLAddr, e.MAC[:])
}

func appendFDB(b []byte, e dataplane.FDBEntry, index uint32) []byte {
	b = ndMsg{family: unix.AF_BRIDGE, index: index, state: nudNoARP | nudPermanent, flags: ntfSelf}.append(b)
	return rtnl.AppendAttr(appendAddr(b, ndaDst, e.Dst), ndaLLAddr, e.MAC[:])
}

// appendAddr appends an address, without a piece of memory for it.
func appendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		v4 := a.As4()
		return rtnl.AppendAttr(b, typ, v4[:])
	}
	v6 := a.As16()
	return rtnl.AppendAttr(b, typ, v6[:])
}

func parseAddr(b []byte) netip.Addr {
	ip, _ := netip.AddrFromSlice(b)
	return ip
}

func parseMAC(b []byte) (mac network.MAC, ok bool) {
	return mac, copy(mac[:], b) == len(b) && len(b) == len(mac)
}
