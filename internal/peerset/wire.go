package peerset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The netlink library has calls for sets, but puts one address into a message,
// which is ten times slower (BenchmarkSync), so requests are written and replies
// are read here; the library's sockets carry them.

const (
	// typeName and revision are those of a plain set of addresses; every
	// kernel that has the type knows revision 0 of it.
	typeName = "hash:ip"
	revision = 0
	// maxElem is how many addresses a set may hold. The kernel's default of
	// 65,536 is just about one for each subnet that a cluster can have; a
	// larger number costs nothing.
	maxElem = 1 << 20
	// batch is how many addresses one message carries: an attribute, and so
	// all of them, may have 65,535 bytes, and an IPv6 address takes 28.
	batch = 1000
	// dumpAttempts is how often a dump is tried that changes interrupt.
	dumpAttempts = 10
	// attrBitmask is IPSET_ATTR_BITMASK of linux/netfilter/ipset/ip_set.h,
	// which the library lacks.
	attrBitmask = 12
)

// kind is what of a set can't be changed.
type kind struct {
	typeName string
	family   uint8
	maxElem  uint32
	// masked says that an entry stands for more than one address, fading
	// that entries have a timeout.
	masked, fading bool
}

// content is a set as the kernel has it.
type content struct {
	kind
	addrs map[netip.Addr]bool
}

func (s Set) kind() kind { return kind{typeName: typeName, family: s.family(), maxElem: maxElem} }

func (s Set) family() uint8 {
	if s.V6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// do sends one command about the set and returns the replies' attributes.
func (s Set) do(cmd, flags int, attrs ...nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(cmd|unix.NFNL_SUBSYS_IPSET<<8, nl.GetIpsetFlags(cmd)|flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: s.family(), Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(s.Name)))
	for _, a := range attrs {
		req.AddData(a)
	}
	replies, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil, fmt.Errorf("%s ipset %s: %w", verb(cmd), s.Name, explain(err))
	}
	for i, r := range replies {
		if len(r) < nl.SizeofNfgenmsg {
			return nil, fmt.Errorf("%s ipset %s: the kernel's reply has %d bytes", verb(cmd), s.Name, len(r))
		}
		replies[i] = r[nl.SizeofNfgenmsg:]
	}
	return replies, nil
}

// verb names a command in errors.
func verb(cmd int) string {
	switch cmd {
	case nl.IPSET_CMD_CREATE:
		return "make"
	case nl.IPSET_CMD_DESTROY:
		return "remove"
	case nl.IPSET_CMD_ADD:
		return "add to"
	case nl.IPSET_CMD_DEL:
		return "remove from"
	}
	return "read"
}

// explain gives errors of ipset's own their names.
func explain(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch {
	case errno == nl.IPSET_ERR_FIND_TYPE:
		return ErrUnsupported
	case errno >= nl.IPSET_ERR_PRIVATE:
		return nl.IPSetError(errno)
	case errno == unix.EPROTONOSUPPORT, errno == unix.EINVAL, errno == unix.EOPNOTSUPP:
		// Without nfnetlink there is no such socket; without ip_set nobody
		// that knows the command.
		return fmt.Errorf("%w (%w)", ErrUnsupported, err)
	}
	return err
}

func isBusy(err error) bool {
	return errors.Is(err, nl.IPSetError(nl.IPSET_ERR_BUSY)) || errors.Is(err, nl.IPSetError(nl.IPSET_ERR_REFERENCED))
}

func (s Set) create() error {
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|unix.NLA_F_NESTED, nil)
	data.AddChild(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_MAXELEM | unix.NLA_F_NET_BYTEORDER, Value: maxElem})
	_, err := s.do(nl.IPSET_CMD_CREATE, unix.NLM_F_EXCL,
		nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated(typeName)),
		nl.NewRtAttr(nl.IPSET_ATTR_REVISION, nl.Uint8Attr(revision)),
		nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(s.family())),
		data)
	return err
}

// each adds or removes addrs, many in one message. Adding what is there and
// removing what is not is no error, for nobody asked to be told.
func (s Set) each(ctx context.Context, cmd int, addrs []netip.Addr) (done int, err error) {
	for done < len(addrs) {
		if err := ctx.Err(); err != nil {
			return done, fmt.Errorf("%s ipset %s: %w", verb(cmd), s.Name, err)
		}
		some := addrs[done:min(done+batch, len(addrs))]
		// The kernel wants a line number where there are several entries, to
		// say which of them is wrong.
		_, err := s.do(cmd, 0,
			nl.NewRtAttr(nl.IPSET_ATTR_LINENO, nl.Uint32Attr(0)),
			nl.NewRtAttr(nl.IPSET_ATTR_ADT|unix.NLA_F_NESTED, entries(some)))
		if err != nil {
			return done, err
		}
		done += len(some)
	}
	return done, nil
}

// entries are addresses as the kernel reads them: each in three attributes,
// one within the other.
func entries(addrs []netip.Addr) []byte {
	var out []byte
	for _, a := range addrs {
		typ := uint16(nl.IPSET_ATTR_IPADDR_IPV4)
		if a.Is6() {
			typ = nl.IPSET_ATTR_IPADDR_IPV6
		}
		raw := a.AsSlice()
		out = appendHeader(out, nl.IPSET_ATTR_DATA|unix.NLA_F_NESTED, 2*unix.SizeofNlAttr+len(raw))
		out = appendHeader(out, nl.IPSET_ATTR_IP|unix.NLA_F_NESTED, unix.SizeofNlAttr+len(raw))
		out = appendHeader(out, typ|unix.NLA_F_NET_BYTEORDER, len(raw))
		out = append(out, raw...) // 4 or 16 bytes: attributes stay aligned
	}
	return out
}

// appendHeader begins an attribute with a value of so many bytes.
func appendHeader(b []byte, typ uint16, size int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+size))
	return binary.NativeEndian.AppendUint16(b, typ)
}

// list reads the whole set; the error is ENOENT if it is absent.
func (s Set) list() (content, error) {
	var replies [][]byte
	var err error
	for range dumpAttempts {
		replies, err = s.do(nl.IPSET_CMD_LIST, 0)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return content{}, err
	}
	c := content{addrs: map[netip.Addr]bool{}}
	for _, r := range replies {
		if err := c.read(r); err != nil {
			return content{}, fmt.Errorf("list ipset %s: %w", s.Name, err)
		}
	}
	return c, nil
}

// typeMask takes the flags off an attribute's type.
const typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// read takes one reply over. A long set comes in several, and only the first
// says what kind it is.
func (c *content) read(reply []byte) error {
	attrs, err := nl.ParseRouteAttr(reply)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		switch a.Attr.Type & typeMask {
		case nl.IPSET_ATTR_TYPENAME:
			c.typeName = unix.ByteSliceToString(a.Value)
		case nl.IPSET_ATTR_FAMILY:
			if len(a.Value) > 0 {
				c.family = a.Value[0]
			}
		case nl.IPSET_ATTR_DATA:
			if err := c.readKind(a.Value); err != nil {
				return err
			}
		case nl.IPSET_ATTR_ADT:
			if err := c.readEntries(a.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *content) readKind(data []byte) error {
	attrs, err := nl.ParseRouteAttr(data)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		switch a.Attr.Type & typeMask {
		case nl.IPSET_ATTR_MAXELEM:
			if len(a.Value) == 4 {
				c.maxElem = binary.BigEndian.Uint32(a.Value)
			}
		case nl.IPSET_ATTR_NETMASK, attrBitmask:
			c.masked = true
		case nl.IPSET_ATTR_TIMEOUT:
			c.fading = true
		}
	}
	return nil
}

func (c *content) readEntries(list []byte) error {
	entries, err := nl.ParseRouteAttr(list)
	if err != nil {
		return err
	}
	for _, e := range entries {
		attrs, err := nl.ParseRouteAttr(e.Value)
		if err != nil {
			return err
		}
		for _, a := range attrs {
			if a.Attr.Type&typeMask != nl.IPSET_ATTR_IP {
				continue
			}
			inner, err := nl.ParseRouteAttr(a.Value)
			if err != nil {
				return err
			}
			for _, ip := range inner {
				addr, ok := netip.AddrFromSlice(ip.Value)
				if !ok {
					return fmt.Errorf("an address of %d bytes", len(ip.Value))
				}
				c.addrs[addr] = true
			}
		}
	}
	return nil
}
