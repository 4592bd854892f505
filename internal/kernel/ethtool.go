package kernel

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// ethtool's commands for transmit checksumming (linux/ethtool.h).
const (
	ethtoolGetTxChecksum = 0x16
	ethtoolSetTxChecksum = 0x17
)

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct {
	cmd, data uint32
}

// ifreq is struct ifreq with the pointer that ethtool's ioctl wants in it.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// turnOffTxChecksum turns off the transmit checksum offload of a device, and
// with it the segmentation offloads that need it. It tells whether it was on.
func turnOffTxChecksum(c *rtnl.Conn, device string) (changed bool, err error) {
	have := ethtoolValue{cmd: ethtoolGetTxChecksum}
	if err := ethtool(c, device, &have); err != nil {
		return false, err
	}
	if have.data == 0 {
		return false, nil
	}
	return true, ethtool(c, device, &ethtoolValue{cmd: ethtoolSetTxChecksum})
}

// ethtool makes one ioctl on a device of the namespace; any socket in it will do.
func ethtool(c *rtnl.Conn, device string, v *ethtoolValue) error {
	var req ifreq
	copy(req.name[:unix.IFNAMSIZ-1], device)
	req.data = unsafe.Pointer(v)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.FD), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(v)
	if errno != 0 {
		return errno
	}
	return nil
}
