package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/dcos/dcos-overlay/internal/cniconf"
	"github.com/dcos/dcos-overlay/internal/cnierror"
	"github.com/dcos/dcos-overlay/internal/cniresult"
	"github.com/dcos/dcos-overlay/internal/delegate"
	"github.com/dcos/dcos-overlay/internal/ipam"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// foreign tells whether another program hands out the addresses.
func (c *call) foreign() bool { return c.conf.IPAMType != cniconf.TypeIPAM }

// hostLocal tells whether that is the stock host-local. Its store is ours, so
// that only ADD needs it.
func (c *call) hostLocal() bool { return c.conf.IPAMType == cniconf.TypeHostLocal }

// checkForeign fails when the program is missing.
func (c *call) checkForeign() error {
	if !c.foreign() {
		return nil
	}
	_, err := c.foreignPath()
	return err
}

func (c *call) foreignPath() (string, error) {
	path, err := delegate.Find(c.conf.IPAMType, c.args.Path)
	if err != nil {
		return "", cnierror.New(types.ErrInvalidNetworkConfig, fmt.Errorf("ipam.type %q is not in CNI_PATH (%s): install that plugin there, or set ipam.type to %q",
			c.conf.IPAMType, c.args.Path, cniconf.TypeIPAM))
	}
	return path, nil
}

// foreignAdd has another IPAM plugin choose the addresses. Those that are of
// the leased subnets are reserved in our store, too: no container gets an
// address that another one has.
func (c *call) foreignAdd(ctx context.Context, pool ipam.Pool, home *ipam.Home) (_ grant, err error) {
	if have, err := pool.Held(ctx, c.owner()); err != nil || len(have) > 0 {
		if err == nil {
			err = cnierror.New(cnierror.CodeDuplicate, fmt.Errorf("container %s has address %v already: DEL it before another ADD", c.owner(), have))
		}
		return grant{}, err
	}
	conf, err := c.foreignConf(&pool)
	if err != nil {
		return grant{}, err
	}
	path, err := c.foreignPath()
	if err != nil {
		return grant{}, err
	}
	defer func() {
		if err != nil {
			// The specification wants a DEL after a failed ADD.
			undo := context.WithoutCancel(ctx)
			err = errors.Join(err, c.foreignRun(undo, "DEL"), pool.Release(undo, c.owner()))
		}
	}()
	raw, err := c.foreignCall("ADD", path, conf).Result(ctx)
	if err != nil {
		return grant{}, cnierror.New(cnierror.CodeIPAM, fmt.Errorf("get an address from IPAM plugin %s: %w", c.conf.IPAMType, err))
	}
	g, err := c.grantOf(raw, pool)
	if err != nil {
		return grant{}, cnierror.New(cnierror.CodeIPAM, fmt.Errorf("get an address from IPAM plugin %s: %w", c.conf.IPAMType, err))
	}
	ours := ipam.Pool{Dir: pool.Dir, Overlay: pool.Overlay}
	var inPool []netip.Addr
	for _, a := range g.addrs {
		if _, ok := subnetOf(pool, a.Prefix.Addr()); ok {
			inPool = append(inPool, a.Prefix.Addr())
			if a.Prefix.Addr().Is4() {
				ours.V4 = pool.V4
			} else {
				ours.V6 = pool.V6
			}
		}
	}
	if c.hostLocal() || len(inPool) == 0 {
		err = pool.Adopt(ctx, c.owner(), *home)
	} else {
		_, err = ours.Reserve(ctx, c.owner(), home, inPool)
	}
	return g, err
}

// grantOf reads an IPAM plugin's result. An address of the leased subnets that
// comes without gateway gets the bridge's.
func (c *call) grantOf(raw types.Result, pool ipam.Pool) (grant, error) {
	result, err := current.NewResultFromResult(raw)
	if err != nil {
		return grant{}, err
	}
	part, err := cniresult.Of(result, c.args.IfName)
	if err != nil {
		return grant{}, err
	}
	if len(part.Addrs) == 0 {
		return grant{}, errors.New("it gave none")
	}
	g := grant{addrs: part.Addrs, routes: c.conf.Routes, dns: c.conf.DNS}
	for i, a := range g.addrs {
		if subnet, ok := subnetOf(pool, a.Prefix.Addr()); ok && !a.Gateway.IsValid() {
			g.addrs[i].Gateway = network.Gateway(subnet).Addr()
		}
	}
	if len(result.Routes) > 0 {
		g.routes = nil
		for _, r := range result.Routes {
			dst, _ := netip.ParsePrefix(r.Dst.String())
			g.routes = append(g.routes, dst.Masked())
		}
	}
	if c.conf.DNS.IsEmpty() {
		g.dns = result.DNS
	}
	return g, nil
}

func subnetOf(pool ipam.Pool, a netip.Addr) (netip.Prefix, bool) {
	for _, side := range []lease.Side{pool.V4, pool.V6} {
		for _, p := range side {
			if p.Contains(a) {
				return p, true
			}
		}
	}
	return netip.Prefix{}, false
}

// foreignDel has the IPAM plugin free what is in a store of its own.
func (c *call) foreignDel(ctx context.Context, pools []ipam.Pool) error {
	if _, recorded := c.recorded(pools); !recorded {
		// Without the program there was no ADD either.
		if err := c.checkForeign(); err != nil {
			c.log.Warn("no IPAM plugin is called", "error", err)
			return nil
		}
	}
	return c.foreignRun(ctx, "DEL")
}

// foreignRun runs a verb that answers nothing; our own IPAM and host-local,
// whose store is ours, need none.
func (c *call) foreignRun(ctx context.Context, verb string) error {
	if !c.foreign() || c.hostLocal() {
		return nil
	}
	path, err := c.foreignPath()
	if err != nil {
		return err
	}
	conf, err := c.foreignConf(nil)
	if err != nil {
		return err
	}
	if _, err := c.foreignCall(verb, path, conf).Run(ctx); err != nil {
		return cnierror.New(cnierror.CodeIPAM, fmt.Errorf("%s of IPAM plugin %s: %w", verb, c.conf.IPAMType, err))
	}
	return nil
}

func (c *call) foreignCall(verb, path string, conf []byte) delegate.Call {
	return delegate.Call{
		Program:     path,
		Conf:        conf,
		Verb:        verb,
		ContainerID: c.args.ContainerID,
		Netns:       c.args.Netns,
		IfName:      c.args.IfName,
		Args:        c.args.Args,
		CNIPath:     c.args.Path,
	}
}

// oldestList is the first version whose results have more than one address of
// a family, and that all IPAM plugins in use know.
const oldestList = "0.3.1"

// foreignConf is our configuration as another IPAM plugin gets it: as it
// stands, but host-local is told the leased ranges and our place for its store
// (pool is for its ADD), and Mesos's ip_addresses are in runtimeConfig.
func (c *call) foreignConf(pool *ipam.Pool) ([]byte, error) {
	var conf map[string]any
	if err := json.Unmarshal(c.conf.Stdin, &conf); err != nil {
		return nil, fmt.Errorf("read the CNI configuration: %w", err)
	}
	if ok, err := version.GreaterThanOrEqualTo(c.conf.CNIVersion, oldestList); err == nil && !ok {
		conf["cniVersion"] = oldestList
		delete(conf, "prevResult")
	}
	if len(c.conf.MesosAddresses) > 0 {
		runtime, _ := conf["runtimeConfig"].(map[string]any)
		if runtime == nil {
			runtime = map[string]any{}
		}
		var ips []string
		for _, a := range c.conf.MesosAddresses {
			text := a.String()
			// static wants a length.
			if pool != nil {
				if subnet, ok := subnetOf(*pool, a); ok {
					text = netip.PrefixFrom(a, subnet.Bits()).String()
				}
			}
			ips = append(ips, text)
		}
		runtime["ips"] = ips
		conf["runtimeConfig"] = runtime
	}
	if c.hostLocal() && pool != nil {
		// host-local names the store's folder for the network.
		conf["name"] = c.conf.Overlay
		section, _ := conf["ipam"].(map[string]any)
		section["dataDir"] = pool.Dir
		section["ranges"] = ranges(*pool)
		if _, ok := section["routes"]; !ok {
			section["routes"] = defaultRoutes(*pool)
		}
	}
	return json.Marshal(conf)
}

// ranges are the leased ones in host-local's words: one set a family.
func ranges(pool ipam.Pool) (sets [][]map[string]string) {
	for _, side := range []lease.Side{pool.V4, pool.V6} {
		var set []map[string]string
		for _, p := range side {
			set = append(set, map[string]string{"subnet": p.String(), "gateway": network.Gateway(p).Addr().String()})
		}
		if len(set) > 0 {
			sets = append(sets, set)
		}
	}
	return sets
}

func defaultRoutes(pool ipam.Pool) (routes []map[string]string) {
	if len(pool.V4) > 0 {
		routes = append(routes, map[string]string{"dst": "0.0.0.0/0"})
	}
	if len(pool.V6) > 0 {
		routes = append(routes, map[string]string{"dst": "::/0"})
	}
	return routes
}
