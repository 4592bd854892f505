package network

import (
	"fmt"
	"net"
	"net/netip"
)

// MAC is an Ethernet address that can be compared and used as a key.
type MAC [6]byte

// ParseMAC reads six bytes in any of the forms of net.ParseMAC.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("%q is not a MAC address such as 70:B3:D5:00:00:00", s)
	}
	if len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("%q has %d bytes, a MAC address has 6", s, len(hw))
	}
	return MAC(hw), nil
}

// AddrMAC is the MAC of a device that holds the address ip. A container that
// gets an address which another one had has the other's MAC with it, so that
// nobody's neighbour table goes stale. 0a:58 is the locally administered
// prefix that the CNI plugins use for the same purpose.
func AddrMAC(ip netip.Addr) MAC {
	b := ip.AsSlice()
	mac := MAC{0x0a, 0x58}
	copy(mac[2:], b[len(b)-4:])
	return mac
}

// Hardware is m in the form that the standard library and netlink use.
func (m MAC) Hardware() net.HardwareAddr { return net.HardwareAddr(m[:]) }

func (m MAC) String() string { return m.Hardware().String() }

// MarshalText writes m as in 70:b3:d5:80:00:01.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *MAC) UnmarshalText(b []byte) error {
	v, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}
