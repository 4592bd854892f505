package watch

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/kernel"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Fixed parts of messages, in bytes (linux/rtnetlink.h, neighbour.h,
// netconf.h, the last one with its padding).
const (
	sizeofIfInfo  = unix.SizeofIfInfomsg
	sizeofIfAddr  = unix.SizeofIfAddrmsg
	sizeofRoute   = unix.SizeofRtMsg
	sizeofNeigh   = unix.SizeofNdMsg
	sizeofNetconf = 4
)

// Attributes of linux/netconf.h, and the index that stands for all devices.
const (
	netconfIfindex    = 1
	netconfForwarding = 2
	netconfAll        = 0xffffffff
)

// isOurs tells our devices by their names. The containers' links (dov…) are
// not among them: the plugin alone makes and removes those, so that nothing is
// there for a companion to mend when one comes or goes.
func isOurs(name string) bool {
	return name == network.VTEPName ||
		strings.HasPrefix(name, network.MesosBridgeName("")) ||
		strings.HasPrefix(name, network.DockerBridgeName(""))
}

// about says in words what of ours a message tells of; nothing for what is not
// ours. It keeps w.ours up to date.
func (w *Watch) about(typ uint16, b []byte) string {
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(typ, b)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return w.addr(b)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return w.route(b)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return w.neigh(typ, b)
	case unix.RTM_NEWNETCONF:
		return netconf(b)
	}
	return ""
}

// attrs are the attributes (struct rtattr) after a fixed part, up to where
// they are cut short; nil for a message without its whole fixed part.
func attrs(b []byte, fixed int) map[uint16][]byte {
	if len(b) < fixed {
		return nil
	}
	out := map[uint16][]byte{}
	for b = b[fixed:]; len(b) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])] = b[unix.SizeofRtAttr:size]
		b = b[min((size+3)&^3, len(b)):] // NLA_ALIGN
	}
	return out
}

func uint32At(b []byte, at int) uint32 {
	if len(b) < at+4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b[at:])
}

func (w *Watch) link(typ uint16, b []byte) string {
	a := attrs(b, sizeofIfInfo)
	// A bridge tells of its ports by messages of its own family.
	if a == nil || b[0] != unix.AF_UNSPEC {
		return ""
	}
	index := uint32At(b, 4)
	name := strings.TrimRight(string(a[unix.IFLA_IFNAME]), "\x00")
	was, known := w.ours[index]
	switch {
	case typ == unix.RTM_DELLINK && known:
		delete(w.ours, index)
		return "device " + was + " was deleted"
	case typ == unix.RTM_NEWLINK && isOurs(name):
		w.ours[index] = name
		return "device " + name
	case known:
		delete(w.ours, index)
		return "device " + was + " is called " + name
	case index == w.under.Load().index && index != 0:
		return "underlay device " + name
	}
	return ""
}

func (w *Watch) addr(b []byte) string {
	a := attrs(b, sizeofIfAddr)
	if a == nil {
		return ""
	}
	index := uint32At(b, 4)
	if name, ok := w.ours[index]; ok {
		return "address of " + name
	}
	ip, ok := netip.AddrFromSlice(a[unix.IFA_LOCAL])
	if !ok {
		ip, _ = netip.AddrFromSlice(a[unix.IFA_ADDRESS])
	}
	if u := w.under.Load(); index == u.index || ip.IsValid() && ip == u.ip {
		return "underlay address " + ip.String()
	}
	return ""
}

func (w *Watch) route(b []byte) string {
	a := attrs(b, sizeofRoute)
	if a == nil || uint32At(b, 8)&unix.RTM_F_CLONED != 0 {
		return ""
	}
	if name, ok := w.ours[uint32At(a[unix.RTA_OIF], 0)]; ok {
		return "route on " + name
	}
	if b[5] == kernel.RouteProtocol {
		return "route of ours"
	}
	return ""
}

func (w *Watch) neigh(typ uint16, b []byte) string {
	if len(b) < sizeofNeigh || w.ours[uint32At(b, 4)] != network.VTEPName {
		return ""
	}
	state := binary.NativeEndian.Uint16(b[8:])
	switch {
	case b[0] == unix.AF_BRIDGE:
		return "forwarding entry"
	case typ == unix.RTM_NEWNEIGH && state&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) != 0:
		return "" // somebody asked for an address that nobody has
	case state == unix.NUD_NOARP:
		return "" // the kernel's multicast entries
	}
	return "neighbour"
}

func netconf(b []byte) string {
	a := attrs(b, sizeofNetconf)
	if uint32At(a[netconfIfindex], 0) != netconfAll || a[netconfForwarding] == nil {
		return ""
	}
	return "packet forwarding"
}
