package docker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

func net4() Network {
	return Network{Name: "dcos", Bridge: "d-dcos", V4: netip.MustParsePrefix("9.0.1.128/25"), MTU: 1420}
}

func net6() Network {
	return Network{Name: "dcos6", Bridge: "d-dcos6", V6: netip.MustParsePrefix("fd01:b::1:8000:0:0/81"), MTU: 1420}
}

func net46() Network {
	return Network{Name: "both", Bridge: "d-both", V4: netip.MustParsePrefix("10.32.1.128/25"),
		V6: netip.MustParsePrefix("fd01:c::1:8000:0:0/81"), MTU: 1400}
}

func TestRealEngine(t *testing.T) {
	e := startEngine(t)
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *engine)
	}{
		{"create and remove", testCreateAndRemove},
		{"wrong and unused", testWrongAndUnused},
		{"wrong and in use", testWrongAndInUse},
		{"cut", testCut},
		{"not ours", testNotOurs},
		{"in the way", testInTheWay},
		{"usage", testUsage},
		{"names are not IDs", testNamesAreNotIDs},
		{"events", testEvents}, // restarts the Engine
	} {
		t.Run(tt.name, func(t *testing.T) {
			e.t = t
			tt.run(t, e)
		})
	}
}

// ensure calls Ensure, wants the given repairs, and wants none the second time.
// Check must say the same before, and change nothing.
func (e *engine) ensure(n Network, repairs ...string) {
	e.t.Helper()
	if problem, err := e.Check(context.Background(), n); err != nil || problem != strings.Join(repairs, "\n") {
		e.t.Fatalf("Check found %q, %v, want %q", problem, err, repairs)
	}
	got, err := e.Ensure(context.Background(), n)
	if err != nil {
		e.t.Fatal(err)
	}
	if strings.Join(got, "\n") != strings.Join(repairs, "\n") {
		e.t.Fatalf("Ensure repaired %q, want %q", got, repairs)
	}
	id := e.inspect(n.Name).ID
	if got, err = e.Ensure(context.Background(), n); err != nil || len(got) != 0 {
		e.t.Fatalf("a second Ensure repaired %q, %v", got, err)
	}
	if problem, err := e.Check(context.Background(), n); err != nil || problem != "" {
		e.t.Fatalf("Check found %q, %v after Ensure", problem, err)
	}
	if again := e.inspect(n.Name).ID; again != id {
		e.t.Fatalf("a second Ensure made network %s of %s", again, id)
	}
}

// fails calls Ensure and wants an error of one line that is exactly text.
func (e *engine) fails(n Network, text string) error {
	e.t.Helper()
	repairs, err := e.Ensure(context.Background(), n)
	if err == nil || err.Error() != text || len(repairs) != 0 {
		e.t.Fatalf("Ensure: %q,\n%v\nwant the error\n%s", repairs, err, text)
	}
	return err
}

func (e *engine) inspect(name string) apinetwork.Inspect {
	e.t.Helper()
	r, err := e.client.NetworkInspect(context.Background(), name, client.NetworkInspectOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	return r.Network
}

func (e *engine) remove(name string) {
	e.t.Helper()
	if err := e.Remove(context.Background(), name); err != nil {
		e.t.Fatal(err)
	}
}

// foreign makes a network without our label.
func (e *engine) foreign(name, bridge, subnet string) (remove func()) {
	e.t.Helper()
	made, err := e.client.NetworkCreate(context.Background(), name, client.NetworkCreateOptions{
		Driver:  "bridge",
		IPAM:    &apinetwork.IPAM{Config: []apinetwork.IPAMConfig{{Subnet: netip.MustParsePrefix(subnet)}}},
		Options: map[string]string{optBridge: bridge},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return func() {
		e.t.Helper()
		if _, err := e.client.NetworkRemove(context.Background(), made.ID, client.NetworkRemoveOptions{}); err != nil {
			e.t.Fatal(err)
		}
	}
}

func testCreateAndRemove(t *testing.T, e *engine) {
	for _, n := range []Network{net4(), net6(), net46()} {
		e.remove(n.Name) // absent
		e.ensure(n, "Docker network "+n.Name+" was missing")

		have := e.inspect(n.Name)
		var halves []netip.Prefix
		for _, c := range have.IPAM.Config {
			if c.Subnet == n.V4 || c.Subnet == n.V6 {
				halves = append(halves, c.Subnet)
				if want := c.Subnet.Addr().Next(); c.Gateway != want {
					t.Errorf("%s: the gateway of %s is %s, want %s", n.Name, c.Subnet, c.Gateway, want)
				}
			}
		}
		if want := n.halves(); join(halves) != join(want) {
			t.Errorf("%s has subnets %s, want %s", n.Name, join(halves), join(want))
		}
		if have.Driver != "bridge" || have.EnableIPv6 != n.V6.IsValid() || have.Labels["dcos-overlay"] != n.Name ||
			have.Options["com.docker.network.bridge.name"] != n.Bridge ||
			have.Options["com.docker.network.bridge.enable_ip_masquerade"] != "false" {
			t.Errorf("%s is %+v", n.Name, have)
		}
	}
	defer e.foreign("foreign", "br-foreign", "10.77.0.0/24")()
	if ours, err := e.List(context.Background()); err != nil || !slices.Equal(ours, []string{"both", "dcos", "dcos6"}) {
		t.Errorf("ours are %q, %v", ours, err)
	}
	for _, n := range []Network{net4(), net6(), net46()} {
		e.remove(n.Name)
		if _, err := e.client.NetworkInspect(context.Background(), n.Name, client.NetworkInspectOptions{}); err == nil {
			t.Errorf("%s is still there", n.Name)
		}
	}
}

func testWrongAndUnused(t *testing.T, e *engine) {
	e.ensure(net4(), "Docker network dcos was missing")
	n := net4()
	n.V4 = netip.MustParsePrefix("9.0.2.128/25")
	e.ensure(n, "Docker network dcos had subnet 9.0.1.128/25 instead of 9.0.2.128/25")
	n.MTU = 1400
	e.ensure(n, "Docker network dcos had option com.docker.network.driver.mtu 1420 instead of 1400")
	n.V6 = netip.MustParsePrefix("fd01:c::1:8000:0:0/81")
	mode := ""
	if e.modern() {
		mode = "option com.docker.network.bridge.gateway_mode_ipv6 none instead of nat-unprotected, "
	}
	e.ensure(n, "Docker network dcos had subnet 9.0.2.128/25 instead of 9.0.2.128/25 and fd01:c::1:8000:0:0/81, "+mode+"IPv6 off instead of on")
	e.ensure(net4(), "Docker network dcos had subnet 9.0.2.128/25 and fd01:c::1:8000:0:0/81 instead of 9.0.1.128/25, "+
		"option com.docker.network.driver.mtu 1400 instead of 1420, IPv6 on instead of off")
	e.remove("dcos")
}

func testWrongAndInUse(t *testing.T, e *engine) {
	e.ensure(net4(), "Docker network dcos was missing")
	ca, cb := e.run("ca", "dcos"), e.run("cb", "dcos")
	e.ensure(net4())

	const inUse = "Docker network dcos is in use by containers ca, cb: remove or disconnect them first (docker network inspect dcos)"
	n := net4()
	n.V4 = netip.MustParsePrefix("9.0.2.128/25")
	err := e.fails(n, "Docker network dcos had subnet 9.0.1.128/25 instead of 9.0.2.128/25 and cannot be made anew: "+inUse)
	if !errors.Is(err, ErrInUse) {
		t.Errorf("%v is not ErrInUse", err)
	}
	if err := e.Remove(context.Background(), "dcos"); !errors.Is(err, ErrInUse) || err.Error() != inUse {
		t.Errorf("Remove: %v, want %s", err, inUse)
	}
	e.end(ca, cb)
	e.ensure(n, "Docker network dcos had subnet 9.0.1.128/25 instead of 9.0.2.128/25")
	e.remove("dcos")
}

func testCut(t *testing.T, e *engine) {
	e.ensure(net4(), "Docker network dcos was missing")
	c := e.run("cut", "dcos")
	for range 2 { // what is done is done
		if err := e.Cut(context.Background(), "dcos"); err != nil {
			t.Errorf("Cut: %v", err)
		}
	}
	e.end(c)
	remove := e.foreign("dcos", "d-dcos", "9.0.1.128/25")
	id := e.inspect("dcos").ID
	if err := e.Cut(context.Background(), "dcos"); err != nil || e.inspect("dcos").ID != id {
		t.Errorf("Cut of a network that is not ours: %v, and it is %s", err, e.inspect("dcos").ID)
	}
	remove()
}

func testNotOurs(t *testing.T, e *engine) {
	remove := e.foreign("dcos", "br-own", "10.1.0.0/24")
	id := e.inspect("dcos").ID
	e.fails(net4(), "Docker network dcos exists with subnet 10.1.0.0/24 instead of 9.0.1.128/25, bridge br-own instead of d-dcos, not ours: remove or rename it")
	e.remove("dcos")
	if again := e.inspect("dcos").ID; again != id {
		t.Errorf("a network that is not ours became %s from %s", again, id)
	}
	remove()

	// What DC/OS's agent module made is good as it is, whatever its options.
	remove = e.foreign("dcos", "d-dcos", "9.0.1.128/25")
	id = e.inspect("dcos").ID
	e.ensure(net4())
	e.remove("dcos")
	if again := e.inspect("dcos").ID; again != id {
		t.Errorf("an adopted network became %s from %s", again, id)
	}
	remove()
}

func testInTheWay(t *testing.T, e *engine) {
	remove := e.foreign("web", "br-web", "9.0.1.0/24")
	_, err := e.Ensure(context.Background(), net4())
	// Later Engines say "invalid pool request" in between.
	const begin, end = "creating Docker network dcos (9.0.1.128/25, bridge d-dcos): Error response from daemon: ",
		"Pool overlaps with other one on this address space: Docker network web has subnet 9.0.1.0/24: remove or change it"
	if err == nil || !strings.HasPrefix(err.Error(), begin) || !strings.HasSuffix(err.Error(), end) {
		t.Errorf("the error is %v", err)
	}
	if errors.Is(err, ErrUnavailable) {
		t.Errorf("%v is ErrUnavailable", err)
	}
	remove()

	remove = e.foreign("web", "d-dcos", "10.1.0.0/24")
	_, err = e.Ensure(context.Background(), net4())
	if err == nil || !strings.HasSuffix(err.Error(), "Docker network web has bridge d-dcos: remove or change it") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
	remove()
}

func testUsage(t *testing.T, e *engine) {
	usage := func(n Network, used, free int64) {
		t.Helper()
		u, f, err := e.Usage(context.Background(), n)
		if err != nil || u != used || f != free {
			t.Errorf("%s: %d used, %d free, %v; want %d and %d", n.Name, u, f, err, used, free)
		}
	}
	usage(net4(), 0, 125)
	e.ensure(net4(), "Docker network dcos was missing")
	e.ensure(net6(), "Docker network dcos6 was missing")
	ca, cb, cc := e.run("ca", "dcos"), e.run("cb", "dcos"), e.run("cc", "dcos6")
	usage(net4(), 2, 123)
	usage(net6(), 1, 1<<47-3)
	e.end(ca, cb, cc)
	usage(net4(), 0, 125)
	e.remove("dcos")
	e.remove("dcos6")
}

// testNamesAreNotIDs asks for an overlay whose name is the beginning of
// another network's ID, which the Engine would take for that network.
func testNamesAreNotIDs(t *testing.T, e *engine) {
	remove := e.foreign("other", "br-other", "10.1.0.0/24")
	defer remove()
	n := net4()
	n.Name = e.inspect("other").ID[:8]
	e.ensure(n, "Docker network "+n.Name+" was missing")
	e.remove(n.Name)
}

func testEvents(t *testing.T, e *engine) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events := e.Events(ctx)
	wait := func(what string) {
		t.Helper()
		select {
		case _, open := <-events:
			if !open {
				t.Fatalf("the channel closed before: %s", what)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no event: %s", what)
		}
	}
	wait("the Engine is there")
	e.ensure(net4(), "Docker network dcos was missing")
	wait("a network is new")
	ca := e.run("ca", "dcos")
	wait("a container is new")
	e.end(ca)

	e.stop()
	wait("the Engine goes")
	if _, err := e.Ensure(ctx, net4()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with the Engine gone: %v", err)
	}
	e.start()
	// What is left of the events before counts as well: look until it is so.
	e.eventually("an event after the restart", func() error {
		wait("the Engine comes back")
		_, err := e.Ensure(ctx, net4())
		return err
	})
	e.ensure(net4())
	e.remove("dcos")

	cancel()
	e.eventually("the channel to be closed", func() error {
		if _, open := <-events; open {
			return errors.New("it is open")
		}
		return nil
	})
}

func TestUnavailable(t *testing.T) {
	e, err := Open("unix:///nowhere/docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	const want = "Docker Engine not reachable at unix:///nowhere/docker.sock: is it installed and running?"
	_, ensureErr := e.Ensure(context.Background(), net4())
	_, _, usageErr := e.Usage(context.Background(), net4())
	for _, err := range []error{ensureErr, usageErr, e.Remove(context.Background(), "dcos")} {
		if !errors.Is(err, ErrUnavailable) || err.Error() != want {
			t.Errorf("the error is\n%v\nwant\n%s", err, want)
		}
	}
	if _, err := Open("nonsense"); err == nil {
		t.Error("Open took nonsense for an address")
	}
}

func TestEngineThatDoesNotAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts
	e, err := Open("tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = e.Ensure(ctx, net4())
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not answer") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v", err)
	}
}
