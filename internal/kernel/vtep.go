package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/internal/dataplane"
)

// EnsureVTEP makes the VXLAN device, or brings the one of that name to v. A
// device that differs in what cannot be changed is deleted and made anew. It
// answers with what it did; when that is anything, the kernel may have dropped
// peers, so the caller should sync them.
func (k *Kernel) EnsureVTEP(ctx context.Context, v dataplane.VTEP) (repairs []string, err error) {
	defer k.mu.Unlock()
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	if !v.Local.IsValid() {
		return nil, fmt.Errorf("make VTEP %s: it has no underlay address", v.Name)
	}
	link, err := k.link(v.Name)
	if err != nil && !errors.Is(err, ErrNoDevice) {
		return nil, err
	}
	if link != nil {
		if why := misfit(link, v); why != "" {
			if err := k.deleteLink(link); err != nil {
				return nil, err
			}
			repairs = append(repairs, fmt.Sprintf("%s: deleted: %s", v.Name, why))
			link = nil
		}
	}
	if link == nil {
		if link, err = k.createVTEP(v); err != nil {
			return repairs, err
		}
		repairs = append(repairs, v.Name+": created")
	}
	more, err := k.ensureSettings(link, settings{mac: v.MAC, mtu: v.MTU, addrs: v.Addrs})
	repairs = append(repairs, more...)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EEXIST) {
		return repairs, fmt.Errorf("%w: %s", err, k.portHolder(v))
	}
	if err != nil {
		return repairs, err
	}
	if !v.TxOffload {
		changed, err := turnOffTxChecksum(k.conn, v.Name)
		if err != nil {
			return repairs, fmt.Errorf("turn off tx checksum offload of %s: %w", v.Name, err)
		}
		if changed {
			repairs = append(repairs, v.Name+": tx checksum offload turned off")
		}
	}
	return repairs, nil
}

// misfit says why link cannot become v, or nothing if it can.
func misfit(link netlink.Link, v dataplane.VTEP) string {
	have, ok := link.(*netlink.Vxlan)
	if !ok {
		return fmt.Sprintf("it is of kind %s, not vxlan", link.Type())
	}
	local, _ := netip.AddrFromSlice(have.SrcAddr)
	local = local.Unmap()
	switch {
	case have.FlowBased:
		return "it is externally controlled"
	case have.VxlanId != v.VNI:
		return fmt.Sprintf("it has VNI %d, not %d", have.VxlanId, v.VNI)
	case have.Port != v.Port:
		return fmt.Sprintf("it has port %d, not %d", have.Port, v.Port)
	case local != v.Local.Unmap():
		return fmt.Sprintf("it sends from %s, not %s", local, v.Local)
	case have.Learning:
		return "it learns addresses"
	case have.Group != nil && !have.Group.IsUnspecified():
		return fmt.Sprintf("it sends to %s by default", have.Group)
	case have.VtepDevIndex != 0:
		return "it is bound to one device"
	}
	return ""
}

func (k *Kernel) createVTEP(v dataplane.VTEP) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = v.Name
	attrs.MTU = v.MTU
	// The MAC is given at creation: one that is set later is a change that
	// udev's link policy may undo.
	attrs.HardwareAddr = v.MAC.Hardware()
	err := k.h.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs,
		VxlanId:   v.VNI,
		SrcAddr:   v.Local.Unmap().AsSlice(),
		Port:      v.Port,
	})
	switch {
	case err == nil:
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("make VTEP %s: %w: kernel lacks vxlan: modprobe vxlan", v.Name, err)
	case errors.Is(err, unix.EEXIST):
		// Either somebody else has just made it, or another device has its
		// VNI and port.
		link, lookup := k.link(v.Name)
		if lookup != nil {
			return nil, fmt.Errorf("make VTEP %s: %w: %s", v.Name, err, k.portHolder(v))
		}
		if why := misfit(link, v); why != "" {
			return nil, fmt.Errorf("make VTEP %s: %w: another program has just made it, but %s", v.Name, err, why)
		}
		return link, nil
	default:
		return nil, fmt.Errorf("make VTEP %s (VNI %d, port %d, local %s): %w", v.Name, v.VNI, v.Port, v.Local, err)
	}
	return k.link(v.Name)
}

// portHolder says who has v's UDP port.
func (k *Kernel) portHolder(v dataplane.VTEP) string {
	links, err := k.h.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Sprintf("UDP port %d is taken: %v", v.Port, err)
	}
	for _, l := range links {
		if other, ok := l.(*netlink.Vxlan); ok && other.Name != v.Name && other.Port == v.Port {
			return fmt.Sprintf("UDP port %d is taken by the VXLAN device %s (VNI %d): ip link delete %s", v.Port, other.Name, other.VxlanId, other.Name)
		}
	}
	return fmt.Sprintf("UDP port %d is taken by another program: see ss -ulnp", v.Port)
}
