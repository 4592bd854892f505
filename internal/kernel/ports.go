package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/rtnl"
)

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: a device's
// counters, most of what a dump has of it, are left out.
const skipStats = 1 << 3

// vethKind is what the kernel calls veth devices.
const vethKind = "veth"

// LooseVeths are the names of the veth devices that are on no bridge, such as
// those whose bridge was deleted.
func (k *Kernel) LooseVeths(ctx context.Context) ([]string, error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	body := rtnl.AppendAttr32(make([]byte, unix.SizeofIfInfomsg, 48), unix.IFLA_EXT_MASK, skipStats)
	body = rtnl.AppendNested(body, unix.IFLA_LINKINFO, func(b []byte) []byte {
		return rtnl.AppendAttr(b, unix.IFLA_INFO_KIND, []byte(vethKind+"\x00"))
	})
	loose, err := readTable(ctx, k.conn, unix.RTM_GETLINK, body, parseLooseVeth)
	if err != nil {
		return nil, fmt.Errorf("list the veth devices: %w", err)
	}
	return loose, nil
}

// parseLooseVeth is the name of a device; loose says that it is a veth without
// a master.
func parseLooseVeth(b []byte) (name string, loose bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return "", false
	}
	veth, master := false, false
	for typ, value := range rtnl.Attrs(b[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			name = unix.ByteSliceToString(value)
		case unix.IFLA_MASTER:
			master = len(value) == 4 && binary.NativeEndian.Uint32(value) != 0
		case unix.IFLA_LINKINFO:
			for typ, value := range rtnl.Attrs(value) {
				veth = veth || typ == unix.IFLA_INFO_KIND && unix.ByteSliceToString(value) == vethKind
			}
		}
	}
	return name, veth && !master
}

// PutOnBridge makes veth devices that are on no bridge ports of this one, as
// containers' links are: with hairpin mode. Whether they are up stays as it is.
// Those that are gone, or on some bridge by now, are left out; it answers those
// that it put there.
func (k *Kernel) PutOnBridge(ctx context.Context, bridge string, veths []string) (done []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	master, err := k.link(bridge)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range veths {
		link, err := k.link(name)
		if errors.Is(err, ErrNoDevice) {
			continue
		}
		if err == nil && (link.Attrs().MasterIndex != 0 || link.Type() != vethKind) {
			continue
		}
		if err == nil {
			err = k.h.LinkSetMaster(link, master)
		}
		if err == nil {
			err = k.h.LinkSetHairpin(link, true)
		}
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("put %s on bridge %s: %w", name, bridge, err))
			continue
		}
		done = append(done, name)
	}
	return done, errors.Join(errs...)
}
