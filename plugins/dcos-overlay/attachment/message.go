package attachment

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// Attributes of veth pairs, bridge ports and IPv4 devices (linux/veth.h,
// linux/if_link.h, linux/ip.h).
const (
	vethInfoPeer       = 1
	iflaBrportMode     = 4 // hairpin
	iflaInetConf       = 1
	ipv4ConfArpNotify  = 22
	sizeofIfInfomsg    = unix.SizeofIfInfomsg
	iflaInfoSlaveKind  = unix.IFLA_INFO_SLAVE_KIND
	iflaInfoSlaveData  = unix.IFLA_INFO_SLAVE_DATA
	createExclusively  = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	addrNoDuplicateDet = unix.IFA_F_NODAD
)

// text is what a message does, for errors.
type text string

func (t text) String() string { return string(t) }

// routeTo is what the message for a route does.
type routeTo netip.Prefix

func (r routeTo) String() string {
	return fmt.Sprintf("add route %s to the container", netip.Prefix(r))
}

// ifInfo appends struct ifinfomsg: a device by its index, or 0 where its name
// follows, that is to come up or to stay as it is.
func ifInfo(b []byte, index int, up bool) []byte {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	b = append(b, unix.AF_UNSPEC, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, flags)
}

func name(b []byte, typ uint16, s string) []byte {
	return rtnl.AppendAttr(b, typ, append([]byte(s), 0))
}

// pair makes the host's end on the bridge, and the other end at once where it
// belongs, in one message.
func pair(a Attachment, ns netns.NsHandle) rtnl.Message {
	b := ifInfo(nil, 0, true)
	b = name(b, unix.IFLA_IFNAME, a.HostIfName)
	b = rtnl.AppendAttr32(b, unix.IFLA_MTU, uint32(a.MTU))
	b = rtnl.AppendAttr32(b, unix.IFLA_MASTER, uint32(a.Bridge.Index))
	b = rtnl.AppendNested(b, unix.IFLA_LINKINFO, func(b []byte) []byte {
		b = name(b, unix.IFLA_INFO_KIND, "veth")
		return rtnl.AppendNested(b, unix.IFLA_INFO_DATA, func(b []byte) []byte {
			return rtnl.AppendNested(b, vethInfoPeer, func(b []byte) []byte {
				b = ifInfo(b, 0, false)
				b = name(b, unix.IFLA_IFNAME, a.IfName)
				b = rtnl.AppendAttr32(b, unix.IFLA_MTU, uint32(a.MTU))
				b = rtnl.AppendAttr(b, unix.IFLA_ADDRESS, a.MAC[:])
				return rtnl.AppendAttr32(b, unix.IFLA_NET_NS_FD, uint32(ns))
			})
		})
	})
	what := fmt.Sprintf("make veth %s on %s with peer %s in %s", a.HostIfName, a.Bridge.Name, a.IfName, a.Netns)
	return rtnl.Message{Type: unix.RTM_NEWLINK, Flags: createExclusively, Body: b, What: text(what)}
}

func hairpin(hostIf string) rtnl.Message {
	b := name(ifInfo(nil, 0, false), unix.IFLA_IFNAME, hostIf)
	b = rtnl.AppendNested(b, unix.IFLA_LINKINFO, func(b []byte) []byte {
		b = name(b, iflaInfoSlaveKind, "bridge")
		return rtnl.AppendNested(b, iflaInfoSlaveData, func(b []byte) []byte {
			return rtnl.AppendAttr(b, iflaBrportMode, []byte{1})
		})
	})
	return rtnl.Message{Type: unix.RTM_NEWLINK, Body: b, What: text("turn hairpin mode of " + hostIf + " on")}
}

func remove(hostIf string) rtnl.Message {
	return rtnl.Message{Type: unix.RTM_DELLINK, Body: name(ifInfo(nil, 0, false), unix.IFLA_IFNAME, hostIf), What: text("remove veth " + hostIf)}
}

// announce has IPv4 addresses announced when the device comes up.
func announce(ifName string, device int) rtnl.Message {
	b := rtnl.AppendNested(ifInfo(nil, device, false), unix.IFLA_AF_SPEC, func(b []byte) []byte {
		return rtnl.AppendNested(b, unix.AF_INET, func(b []byte) []byte {
			return rtnl.AppendNested(b, iflaInetConf, func(b []byte) []byte {
				return rtnl.AppendAttr32(b, ipv4ConfArpNotify, 1)
			})
		})
	})
	return rtnl.Message{Type: unix.RTM_SETLINK, Body: b, What: text("have " + ifName + " announce its addresses")}
}

func up(ifName string, device int) rtnl.Message {
	return rtnl.Message{Type: unix.RTM_SETLINK, Body: ifInfo(nil, device, true), What: text("set " + ifName + " up")}
}

// address is struct ifaddrmsg with the address twice: as the interface's own,
// and as that of a link with no single peer.
func address(ifName string, device int, p netip.Prefix) rtnl.Message {
	family, flags := uint8(unix.AF_INET), uint8(0)
	if p.Addr().Is6() {
		// The allocator keeps addresses unique; waiting for duplicate address
		// detection would cost the container its first second.
		family, flags = unix.AF_INET6, addrNoDuplicateDet
	}
	b := []byte{family, uint8(p.Bits()), flags, unix.RT_SCOPE_UNIVERSE}
	b = binary.NativeEndian.AppendUint32(b, uint32(device))
	b = rtnl.AppendAttr(b, unix.IFA_LOCAL, p.Addr().AsSlice())
	b = rtnl.AppendAttr(b, unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Addr().Is4() && p.Bits() < 31 {
		b = rtnl.AppendAttr(b, unix.IFA_BROADCAST, broadcast(p))
	}
	what := fmt.Sprintf("add address %s to %s", p, ifName)
	return rtnl.Message{Type: unix.RTM_NEWADDR, Flags: createExclusively, Body: b, What: text(what)}
}

// broadcast is the last address of an IPv4 subnet.
func broadcast(p netip.Prefix) []byte {
	ip := p.Addr().As4()
	last := binary.BigEndian.Uint32(ip[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, last)
}

// onLink is struct rtmsg for a gateway that is on the interface's link, though
// its address is of no range of the interface's.
func onLink(device int, gw netip.Addr) rtnl.Message {
	family, scope := uint8(unix.AF_INET), uint8(unix.RT_SCOPE_LINK)
	if gw.Is6() {
		family, scope = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE
	}
	b := []byte{family, uint8(gw.BitLen()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0}
	b = rtnl.AppendAttr(b, unix.RTA_DST, gw.AsSlice())
	b = rtnl.AppendAttr32(b, unix.RTA_OIF, uint32(device))
	return rtnl.Message{Type: unix.RTM_NEWROUTE, Flags: createExclusively, Body: b, What: text(fmt.Sprintf("add a route to the gateway %s to the container", gw))}
}

// route is struct rtmsg for a destination behind a gateway.
func route(device int, dst netip.Prefix, gw netip.Addr) rtnl.Message {
	family := uint8(unix.AF_INET)
	if dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	b := []byte{family, uint8(dst.Bits()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	if dst.Bits() > 0 {
		b = rtnl.AppendAttr(b, unix.RTA_DST, dst.Addr().AsSlice())
	}
	b = rtnl.AppendAttr(b, unix.RTA_GATEWAY, gw.AsSlice())
	b = rtnl.AppendAttr32(b, unix.RTA_OIF, uint32(device))
	return rtnl.Message{Type: unix.RTM_NEWROUTE, Flags: createExclusively, Body: b, What: routeTo(dst)}
}
