package attachment

import (
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/network"
	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// ifreq is struct ifreq of netdevice(7): a device's name, and what is asked of
// it.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	value [24]byte
}

// ask asks for one property of a device. Unlike a netlink request this does
// not wait for the lock that changes of devices are made under.
func ask(c *rtnl.Conn, request uint, device string) (ifreq, error) {
	var r ifreq
	if len(device) >= len(r.name) {
		return r, errors.New("the name is too long")
	}
	copy(r.name[:], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.FD), uintptr(request), uintptr(unsafe.Pointer(&r)))
	runtime.KeepAlive(&r)
	if errno != 0 {
		return r, errno
	}
	return r, nil
}

// index is a device's, in the namespace of the socket.
func index(c *rtnl.Conn, device string) (int, error) {
	r, err := ask(c, unix.SIOCGIFINDEX, device)
	return int(binary.NativeEndian.Uint32(r.value[:])), err
}

// mtu is a device's, in bytes.
func mtu(c *rtnl.Conn, device string) (int, error) {
	r, err := ask(c, unix.SIOCGIFMTU, device)
	return int(binary.NativeEndian.Uint32(r.value[:])), err
}

// mac is a device's, behind the family in struct sockaddr.
func mac(c *rtnl.Conn, device string) (network.MAC, error) {
	r, err := ask(c, unix.SIOCGIFHWADDR, device)
	return network.MAC(r.value[2:8]), err
}
