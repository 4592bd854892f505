// Command floor is the least that a CNI plugin of one process can do: a veth
// pair with one end in the container and one on the bridge, an address by
// host-local's own allocator and store, a route, and no more. It checks, undoes
// and explains nothing; it is what dcos-overlay is measured against.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

type conf struct {
	types.NetConf
	Bridge string `json:"bridge"`
}

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del}, version.All, "the least that a CNI plugin can do")
}

func hostIf(args *skel.CmdArgs) string { return "fl" + args.ContainerID }

func add(args *skel.CmdArgs) error {
	var c conf
	if err := json.Unmarshal(args.StdinData, &c); err != nil {
		return err
	}
	ip, err := reserve(args)
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPath(args.Netns)
	if err != nil {
		return err
	}
	bridge, err := netlink.LinkByName(c.Bridge)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.MTU, attrs.Flags = hostIf(args), bridge.Attrs().Index, bridge.Attrs().MTU, net.FlagUp
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: args.IfName, PeerNamespace: netlink.NsFd(int(ns))}); err != nil {
		return err
	}
	everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	if err := within(ns, func() error { return configure(args.IfName, ip, everywhere) }); err != nil {
		return err
	}
	result := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: args.IfName, Sandbox: args.Netns}},
		IPs:        []*current.IPConfig{ip},
		Routes:     []*types.Route{{Dst: *everywhere, GW: ip.Gateway}},
	}
	return types.PrintResult(result, c.CNIVersion)
}

// within runs f with this thread in ns.
func within(ns netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		return err
	}
	if err := netns.Set(ns); err != nil {
		return err
	}
	return errors.Join(f(), netns.Set(own))
}

func configure(ifName string, ip *current.IPConfig, everywhere *net.IPNet) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	link, err := h.LinkByName(ifName)
	if err != nil {
		return err
	}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: &ip.Address}); err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	return h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere, Gw: ip.Gateway})
}

func reserve(args *skel.CmdArgs) (*current.IPConfig, error) {
	c, _, err := allocator.LoadIPAMConfig(args.StdinData, args.Args)
	if err != nil {
		return nil, err
	}
	store, err := disk.New(c.Name, c.DataDir)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return allocator.NewIPAllocator(&c.Ranges[0], store, 0).Get(args.ContainerID, args.IfName, nil)
}

func del(args *skel.CmdArgs) error {
	link, err := netlink.LinkByName(hostIf(args))
	if err != nil {
		return fmt.Errorf("find %s: %w", hostIf(args), err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return err
	}
	c, _, err := allocator.LoadIPAMConfig(args.StdinData, args.Args)
	if err != nil {
		return err
	}
	store, err := disk.New(c.Name, c.DataDir)
	if err != nil {
		return err
	}
	defer store.Close()
	err = store.Lock()
	if err != nil {
		return err
	}
	defer func() { _ = store.Unlock() }()
	return store.ReleaseByID(args.ContainerID, args.IfName)
}
