package peerset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
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
	// flagListHeader is IPSET_FLAG_LIST_HEADER of the same: what a set is like,
	// without what it holds.
	flagListHeader = 1 << 2
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
	// size is how many addresses the kernel counts.
	size  int
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
		replies[i] = r[min(len(r), nl.SizeofNfgenmsg):]
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
		c.read(r)
	}
	return c, nil
}

// read takes one reply over. A long set comes in several, and only the first
// says what kind it is.
func (c *content) read(reply []byte) {
	for typ, value := range attrs(reply) {
		switch {
		case typ == nl.IPSET_ATTR_TYPENAME:
			c.typeName = unix.ByteSliceToString(value)
		case typ == nl.IPSET_ATTR_FAMILY && len(value) > 0:
			c.family = value[0]
		case typ == nl.IPSET_ATTR_DATA:
			c.readKind(value)
		case typ == nl.IPSET_ATTR_ADT:
			c.readEntries(value)
		}
	}
}

func (c *content) readKind(data []byte) {
	for typ, value := range attrs(data) {
		switch {
		case typ == nl.IPSET_ATTR_MAXELEM && len(value) == 4:
			c.maxElem = binary.BigEndian.Uint32(value)
		case typ == nl.IPSET_ATTR_ELEMENTS && len(value) == 4:
			c.size = int(binary.BigEndian.Uint32(value))
		case typ == nl.IPSET_ATTR_NETMASK, typ == attrBitmask:
			c.masked = true
		case typ == nl.IPSET_ATTR_TIMEOUT:
			c.fading = true
		}
	}
}

func (c *content) readEntries(list []byte) {
	for _, entry := range attrs(list) {
		for typ, value := range attrs(entry) {
			if typ != nl.IPSET_ATTR_IP {
				continue
			}
			for _, raw := range attrs(value) {
				if addr, ok := netip.AddrFromSlice(raw); ok {
					c.addrs[addr] = true
				}
			}
		}
	}
}

// attrs yields the type, less its flags, and the value of each attribute in b,
// as far as they are whole.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofNlAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^flags, b[unix.SizeofNlAttr:size]) {
				return
			}
			aligned := (size + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1)
			b = b[min(aligned, len(b)):]
		}
	}
}
