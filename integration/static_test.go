package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// fixedOverlay has both families, and a part of each for fixed addresses.
const fixedOverlay = `{"subnet": "10.60.0.0/16", "prefix": 24, "subnet6": "fd01:60::/64", "prefix6": 80,
	"static_subnet": "10.60.255.0/24", "static_subnet6": "fd01:60:0:0:ffff::/80", "static_takeover": "5s"}`

// code104 is in a result that says that the address can't be given.
const code104 = `"code": 104,`

// fixing is a scene with a third agent and overlay fixed, which has a client
// on each agent.
type fixing struct {
	*testing.T
	*scene.Scene
	c       *lab.Host
	clients []*lab.Container
	far     *lab.Container
}

func newFixing(t *testing.T, coordinator ...string) *fixing {
	f := &fixing{T: t, Scene: newScene(t)}
	ctx := t.Context()
	if len(coordinator) > 0 {
		check(t, f.Coordinator.Kill())
		check(t, f.StartCoordinator(ctx, coordinator...))
	}
	putOverlay(t, f.Scene, "fixed", fixedOverlay)
	f.c = must[*lab.Host](t)(f.Lab.AddHost(ctx, "c", netip.MustParseAddr("172.17.0.5")))
	conf := must[[]byte](t)(f.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}}))
	for _, h := range []*lab.Host{f.A, f.B, f.c} {
		f.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, conf, "--interval", "1s"))
		client := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "client", Conf: scene.CNI("fixed")}))
		f.clients = append(f.clients, client)
		f.far = client
	}
	return f
}

// task asks for fixed addresses.
func fixedTask(id string, labels map[string]string, addrs ...netip.Addr) lab.MesosTask {
	var asked, carried []map[string]string
	for _, a := range addrs {
		asked = append(asked, map[string]string{"ip_address": a.String()})
	}
	for k, v := range labels {
		carried = append(carried, map[string]string{"key": k, "value": v})
	}
	return lab.MesosTask{ID: id, Conf: scene.CNI("fixed"), NetworkInfo: map[string]any{
		"ip_addresses": asked, "labels": map[string]any{"labels": carried},
	}}
}

// answers tells whether something answers a client at once.
func answers(ctx context.Context, from *lab.Container, to netip.AddrPort) error {
	_, err := from.Run(ctx, "probe", "dial", "-timeout", "200ms", to.String())
	return err
}

func (f *fixing) until(what string, ok func(ctx context.Context) error) time.Duration {
	f.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(f.Context(), hang)
	defer cancel()
	check(f.T, lab.Until(ctx, what, ok))
	return time.Since(began)
}

// TestFixedAddressMoves has a container with fixed addresses killed and started
// on the other host again and again. Each time it serves another port, which
// tells which of them answers.
func TestFixedAddressMoves(t *testing.T) {
	const moves = 50
	f := newFixing(t)
	ctx := t.Context()
	v4, v6 := netip.MustParseAddr("10.60.255.10"), netip.MustParseAddr("fd01:60:0:0:ffff::10")
	hosts := []*lab.Host{f.A, f.B}
	var took, took6 []time.Duration
	var c *lab.Container
	step := time.Now()
	lap := func(what string) {
		if d := time.Since(step); d > 2*time.Second {
			t.Logf("%s took %s", what, d.Round(time.Millisecond))
		}
		step = time.Now()
	}
	for i := range moves {
		port, before := uint16(8000+i), uint16(8000+i-1)
		if c != nil {
			check(t, c.Delete(ctx))
		}
		lap("the DEL")
		c = must[*lab.Container](t)(hosts[i%2].MesosContainer(ctx, fixedTask(fmt.Sprint("fixed", i), nil, v4, v6)))
		lap("the ADD")
		began := time.Now()
		if c.IP4 != v4 || c.IP6 != v6 {
			t.Fatalf("container %d has %s and %s", i, c.IP4, c.IP6)
		}
		must[*lab.Process](t)(c.Serve(ctx, port))
		f.until("far to see it again", func(ctx context.Context) error { return answers(ctx, f.far, netip.AddrPortFrom(v4, port)) })
		took = append(took, time.Since(began))
		f.until("far to see it again by IPv6", func(ctx context.Context) error { return answers(ctx, f.far, netip.AddrPortFrom(v6, port)) })
		took6 = append(took6, time.Since(began))
		lap("to be seen from afar")
		// Those on the hosts that it came from and went to, too.
		for _, client := range f.clients {
			for _, addr := range []netip.Addr{v4, v6} {
				f.until("a client to see it", func(ctx context.Context) error { return answers(ctx, client, netip.AddrPortFrom(addr, port)) })
				if i > 0 && answers(ctx, client, netip.AddrPortFrom(addr, before)) == nil {
					t.Fatalf("move %d: the one before answers still", i)
				}
			}
		}
		lap("the other clients")
		// Nobody was told to look for it on his own link.
		if out := must[string](t)(f.clients[i%2].Run(ctx, "ip", "route", "get", v4.String())); strings.Contains(out, "redirected") {
			t.Fatalf("the client beside it has %s", out)
		}
	}
	for name, all := range map[string][]time.Duration{"IPv4": took, "IPv6, asked after IPv4": took6} {
		slices.Sort(all)
		t.Logf("%d moves: seen again over %s %s after the ADD in the median, %s at most", moves, name, all[moves/2].Round(time.Millisecond), all[moves-1].Round(time.Millisecond))
		if all[moves-1] > 10*time.Second {
			t.Errorf("it took %s", all[moves-1])
		}
	}
	check(t, c.Delete(ctx))
	f.until("nothing left of it", func(context.Context) error {
		if o := heldOf(t, f.Scene, hosts[(moves-1)%2], "fixed"); len(o.Addresses) > 0 {
			return fmt.Errorf("its agent holds %v", o.Addresses)
		}
		for _, h := range []*lab.Host{f.A, f.B, f.c} {
			if out := must[string](t)(h.Run(ctx, "sh", "-c", "ip route show proto 44; ip -6 route show proto 44")); strings.Contains(out, v4.String()) || strings.Contains(out, v6.String()) {
				return fmt.Errorf("host %s has the routes %s", h.Name, out)
			}
		}
		return nil
	})
}

// TestFixedAddressOfACutOffHost: it goes to another host, and the first one
// gives it up when it is back.
func TestFixedAddressOfACutOffHost(t *testing.T) {
	f := newFixing(t, "--alive-ttl", "5s")
	var took []time.Duration
	for i := range 4 {
		took = append(took, f.cutOff(i))
	}
	t.Logf("the first host gave it up so long after it was back: %v", took)
	if most := slices.Max(took); most > 10*time.Second {
		t.Errorf("it took %s", most)
	}
}

// cutOff cuts host a off, which has a fixed address, until host b has it, and
// tells how long host a has two of them then.
func (f *fixing) cutOff(round int) time.Duration {
	t, ctx := f.T, f.Context()
	t.Helper()
	addr := netip.MustParseAddr("10.60.255.20")
	old, now := netip.AddrPortFrom(addr, 8001), netip.AddrPortFrom(addr, 8002)
	name := fmt.Sprint("first", round)
	first := must[*lab.Container](t)(f.A.MesosContainer(ctx, fixedTask(name, nil, addr)))
	must[*lab.Process](t)(first.Serve(ctx, old.Port()))
	f.until("far to see it", func(ctx context.Context) error { return answers(ctx, f.far, old) })
	_, err := f.B.MesosContainer(ctx, fixedTask("early", nil, addr))
	if err == nil || !strings.Contains(err.Error(), "container "+name+" (eth0) on agent 172.17.0.4 has it, which is ") || !strings.Contains(err.Error(), code104) {
		t.Errorf("an address that is taken: %v", err)
	}

	check(t, f.A.Isolate())
	began := time.Now()
	var second *lab.Container
	f.until("the address to be taken over", func(ctx context.Context) (err error) {
		second, err = f.B.MesosContainer(ctx, fixedTask("second", nil, addr))
		return err
	})
	t.Logf("the address went to another host %s after its host was cut off, with static_takeover 5s", time.Since(began).Round(100*time.Millisecond))
	must[*lab.Process](t)(second.Serve(ctx, now.Port()))
	f.until("far to see the second", func(ctx context.Context) error { return answers(ctx, f.far, now) })
	if answers(ctx, f.far, old) == nil {
		t.Error("the first one answers far still")
	}
	// The host that is cut off knows no better.
	f.until("the client beside the first to see it still", func(ctx context.Context) error { return answers(ctx, f.clients[0], old) })

	check(t, f.A.Plug())
	took := f.until("the first one to be taken off the network", func(ctx context.Context) error {
		if answers(ctx, f.clients[0], old) == nil {
			return errors.New("it answers the client beside it")
		}
		return nil
	})
	f.until("the client beside the first to see the second", func(ctx context.Context) error { return answers(ctx, f.clients[0], now) })
	f.until("far to see the second still", func(ctx context.Context) error { return answers(ctx, f.far, now) })
	f.until("the companion to say so", func(context.Context) error {
		if log := f.Companions["a"].Log(); !strings.Contains(log, fmt.Sprintf("address=%s container=%s because=", addr, name)) {
			return fmt.Errorf("it says\n%s", log)
		}
		return nil
	})
	f.until("the companion to tell of it", func(ctx context.Context) error {
		_, body, err := f.A.HTTP(ctx, http.MethodGet, "http://127.0.0.1:64002/healthz", nil)
		if err == nil && !strings.Contains(string(body), "10.60.255.20 of overlay fixed went to another agent") {
			err = fmt.Errorf("it says %s", body)
		}
		return err
	})
	// Its DEL, which comes at last, takes nothing from the second.
	check(t, first.Delete(ctx))
	f.until("far to see the second after the DEL", func(ctx context.Context) error { return answers(ctx, f.far, now) })
	check(t, second.Delete(ctx))
	return took.Round(10 * time.Millisecond)
}

// TestFixedAddressRules: who gets which, and what a host does by itself.
func TestFixedAddressRules(t *testing.T) {
	f := newFixing(t)
	ctx := t.Context()
	addr := netip.MustParseAddr("10.60.255.30")
	refused := func(h *lab.Host, task lab.MesosTask, want string) {
		t.Helper()
		c, err := h.MesosContainer(ctx, task)
		if err == nil {
			t.Errorf("%s is given to %s", c.IP4, task.ID)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), code104) {
			t.Errorf("got %v,\nwant %s", err, want)
		}
	}
	refused(f.A, fixedTask("elsewhere", nil, netip.MustParseAddr("10.60.77.5")),
		"and fixed addresses, on any agent, are of [10.60.255.0/24 fd01:60:0:0:ffff::/80]")
	url := f.Master.CoordinatorURL() + "/v1/overlays/fixed/reservations/" + addr.String()
	code, body, err := f.Master.HTTP(ctx, http.MethodPut, url, []byte(`{"label": "role=db"}`))
	if err != nil || code != http.StatusOK {
		t.Fatalf("reserve %s: %d %s, %v", addr, code, body, err)
	}
	refused(f.A, fixedTask("stranger", map[string]string{"role": "web"}, addr), `is reserved for containers with the label \"role=db\"`)
	c := must[*lab.Container](t)(f.A.MesosContainer(ctx, fixedTask("db", map[string]string{"role": "db"}, addr)))
	refused(f.A, fixedTask("twin", map[string]string{"role": "db"}, addr), "another container has it: db/eth0 on this agent")
	refused(f.B, fixedTask("twin", map[string]string{"role": "db"}, addr), "container db (eth0) on agent 172.17.0.4 has it")
	must[*lab.Process](t)(c.Serve(ctx, scene.Port))
	f.until("far to see it", func(ctx context.Context) error { return answers(ctx, f.far, netip.AddrPortFrom(addr, scene.Port)) })

	// The companion mends the host's route, and nothing is masqueraded.
	must[string](t)(f.A.Run(ctx, "ip", "route", "flush", "proto", "44"))
	f.until("far to see it again", func(ctx context.Context) error { return answers(ctx, f.far, netip.AddrPortFrom(addr, scene.Port)) })
	must[*lab.Process](t)(f.far.Serve(ctx, scene.Port))
	if seen := must[netip.AddrPort](t)(c.Dial(ctx, serverOf(f.far))); seen.Addr() != addr {
		t.Errorf("far sees it as %s", seen)
	}

	// Without coordinator a DEL succeeds, and the address is free once there is
	// one again.
	check(t, f.Coordinator.Kill())
	check(t, c.Delete(ctx))
	check(t, f.StartCoordinator(ctx))
	f.until("the address to be given back", func(context.Context) error {
		if o := heldOf(t, f.Scene, f.A, "fixed"); o == nil || len(o.Addresses) > 0 {
			return errors.New("it is held")
		}
		return nil
	})
	must[*lab.Container](t)(f.B.MesosContainer(ctx, fixedTask("db2", map[string]string{"role": "db"}, addr)))
	if o := heldOf(t, f.Scene, f.B, "fixed"); len(o.Addresses) != 1 || o.Addresses[0].IP != addr || o.Addresses[0].Container != "db2" {
		t.Errorf("host b holds %v", o.Addresses)
	}
}
