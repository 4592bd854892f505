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
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// hang ends a wait for what never comes. It is no measure of anything.
const hang = 2 * time.Minute

// healing is a scene in which host a suffers and others talk on.
type healing struct {
	*testing.T
	*scene.Scene
	docker *lab.Process
	// pairs are containers on a and b, one pair an overlay.
	pairs [][2]*lab.Container
	// whole is what a's overlays look like when all is right.
	whole string
	// lacking is in which lines they were unlike it when last looked at.
	lacking string
	n       int
}

// fault is one row of the table.
type fault struct {
	name string
	// do harms host a. The clock starts when it returns.
	do func(ctx context.Context)
	// flows succeeds when traffic flows again; nil stands for the pairs.
	flows func(ctx context.Context) error
	// after brings back what the fault itself has taken from others.
	after func(ctx context.Context)
	note  string
}

// TestFaults harms host a in every way, and prints how long it takes until
// traffic flows again, and until all is as it was. Times are not asserted: they
// are the machine's, too. That others' traffic and others' things stay is.
func TestFaults(t *testing.T) {
	h := newHealing(t)
	ctx := t.Context()
	putForeign(t, h.A)
	foreignAtFirst := foreign(t, h.A)

	c := must[*lab.Host](t)(h.Lab.AddHost(ctx, "c", netip.MustParseAddr("172.17.0.5")))
	conf := must[[]byte](t)(h.AgentJSON(map[string]any{"network_config": map[string]any{"docker_bridge": false}}))
	h.Companions["c"] = must[*lab.Process](t)(c.StartCompanion(ctx, conf))
	from := must[*lab.Container](t)(c.MesosContainer(ctx, lab.MesosTask{ID: "from", Conf: scene.CNI("dcos")}))
	check(t, h.eventually("a route from b to c", func(ctx context.Context) error {
		_, err := h.B.Run(ctx, "sh", "-c", fmt.Sprintf("ip route get %s | grep vtep1024", from.IP4))
		return err
	}))
	stream := must[*lab.Stream](t)(from.Stream(ctx, netip.AddrPortFrom(h.pairs[0][1].IP4, scene.Port), time.Hour))
	check(t, h.eventually("c's peer on a", func(ctx context.Context) error {
		_, err := h.A.Run(ctx, "sh", "-c", fmt.Sprintf("ip route get %s | grep vtep1024", from.IP4))
		return err
	}))
	h.whole = must[string](t)(h.overlays(ctx))

	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "fault\ttraffic flows\tall is as it was\t")
	for _, f := range h.faults() {
		flows, whole := h.suffer(ctx, f)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.name, flows.Round(time.Millisecond), whole.Round(time.Millisecond), f.note)
		h.quiet(ctx, f.name)
	}
	if after := foreign(t, h.A); after != foreignAtFirst {
		t.Errorf("what is not ours has changed:\n%s", unlike(foreignAtFirst, after))
	}
	flows, whole := h.reboot(ctx)
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", "host rebooted", flows.Round(time.Millisecond), whole.Round(time.Millisecond),
		"from the companion's start; the lease is the same")
	w.Flush()
	t.Logf("on host a:\n%s", &table)

	gap, err := stream.Finish(ctx)
	if err != nil {
		t.Errorf("the stream between two other hosts broke: %v", err)
	}
	t.Logf("the stream from host c to host b went on; its longest gap was %s", gap)
}

func newHealing(t *testing.T) *healing {
	h := &healing{T: t, Scene: newScene(t)}
	ctx := t.Context()
	h.docker = must[*lab.Process](t)(h.A.StartDocker(ctx))
	must[*lab.Process](t)(h.B.StartDocker(ctx))
	for _, host := range []*lab.Host{h.Master, h.A, h.B} {
		check(t, h.StartCompanion(ctx, host))
	}
	check(t, h.AwaitPeers(ctx))
	must[*lab.Process](t)(h.Lab.Outside.Serve(ctx, scene.Port))
	for _, overlay := range []string{"dcos", "dcos6"} {
		h.pairs = append(h.pairs, [2]*lab.Container{h.container(ctx, h.A, overlay), h.container(ctx, h.B, overlay)})
	}
	return h
}

// container starts one that serves.
func (h *healing) container(ctx context.Context, on *lab.Host, overlay string) *lab.Container {
	h.Helper()
	h.n++
	c := must[*lab.Container](h.T)(on.MesosContainer(ctx, lab.MesosTask{ID: fmt.Sprint("c", h.n), Conf: scene.CNI(overlay)}))
	must[*lab.Process](h.T)(c.Serve(ctx, scene.Port))
	return c
}

func (h *healing) eventually(what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(h.Context(), hang)
	defer cancel()
	return lab.Until(ctx, what, f)
}

// connect tries one connection for a short time: a lost packet must not hide
// for a second that the next one would get through.
func connect(ctx context.Context, from *lab.Place, to netip.Addr) error {
	_, err := from.Run(ctx, "probe", "dial", "-timeout", "200ms", netip.AddrPortFrom(to, scene.Port).String())
	return err
}

// pairsTalk succeeds when each container reaches its partner.
func (h *healing) pairsTalk(ctx context.Context) error {
	for _, p := range h.pairs {
		for _, way := range [][2]*lab.Container{{p[0], p[1]}, {p[1], p[0]}} {
			to := way[1].IP4
			if !to.IsValid() {
				to = way[1].IP6
			}
			if err := connect(ctx, &way[0].Place, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// overlays prints all of ours on host a that packets depend on.
func (h *healing) overlays(ctx context.Context) (string, error) {
	return h.A.Run(ctx, "sh", "-c", `
		for dev in vtep1024 m-dcos m-dcos6; do
			ip -o link show dev $dev | grep -oE 'mtu [0-9]+|link/ether [0-9a-f:]+|,UP'
			ip -o addr show dev $dev scope global | grep -oE 'inet6? [^ ]+'
			ip route show dev $dev | sed 's/ linkdown//' | sort
			ip -6 route show dev $dev | sed 's/ linkdown//' | sort
		done
		ip neigh show dev vtep1024 nud permanent | sort
		bridge fdb show dev vtep1024 | sort
		bridge link show | grep -oE 'master m-[a-z0-9]+' | sort
		bridge -d link show | grep -oE 'hairpin on'
		for save in iptables-save ip6tables-save; do
			$save | grep -E '^-A DCOS-OVERLAY'
			$save | grep -oE -- '-j DCOS-OVERLAY-[A-Z-]+' | sort
		done
		docker network inspect --format '{{.Name}} {{.Options}} {{range .IPAM.Config}}{{.Subnet}}{{end}}' dcos dcos6 2>&1
		sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding
		true`)
}

// isWhole succeeds when host a's overlays are as at first.
func (h *healing) isWhole(ctx context.Context) error {
	now, err := h.overlays(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%w; before: %s", err, h.lacking)
	case now == h.whole:
		return nil
	}
	h.lacking = unlike(h.whole, now)
	return fmt.Errorf("they differ, - for what is wanted:\n%s", h.lacking)
}

// unlike lists the lines that only one of two texts has.
func unlike(want, have string) string {
	var out strings.Builder
	for _, side := range []struct{ sign, text, other string }{{"- ", want, have}, {"+ ", have, want}} {
		others := strings.Split(side.other, "\n")
		for _, line := range strings.Split(side.text, "\n") {
			if !slices.Contains(others, line) {
				fmt.Fprintln(&out, side.sign+line)
			}
		}
	}
	return out.String()
}

// suffer makes the fault, and measures.
func (h *healing) suffer(ctx context.Context, f fault) (flows, whole time.Duration) {
	h.Helper()
	flowing := f.flows
	if flowing == nil {
		flowing = h.pairsTalk
	}
	before := foreign(h.T, h.A)
	f.do(ctx)
	began := time.Now()
	check(h.T, h.eventually("traffic after: "+f.name, flowing))
	flows = time.Since(began)
	check(h.T, h.eventually("recovery from: "+f.name, h.isWhole))
	whole = time.Since(began)
	if f.after != nil {
		f.after(ctx)
	}
	if after := foreign(h.T, h.A); after != before {
		h.Errorf("%s: what is not ours has changed:\n%s", f.name, unlike(before, after))
	}
	return flows, whole
}

// quiet checks that the companion comes to rest: passes go on only as the
// interval demands.
func (h *healing) quiet(ctx context.Context, after string) {
	h.Helper()
	check(h.T, h.eventually("a companion at rest after "+after, func(ctx context.Context) error {
		count := func() (float64, error) {
			code, body, err := h.A.HTTP(ctx, http.MethodGet, "http://127.0.0.1:64002/metrics", nil)
			if err != nil || code != http.StatusOK {
				return 0, fmt.Errorf("metrics: %d, %w", code, err)
			}
			return sum(string(body), "dcos_overlay_companion_passes_total")
		}
		before, err := count()
		if err != nil {
			return err
		}
		// As long as several passes would take, each waking the next.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(600 * time.Millisecond):
		}
		after, err := count()
		if err == nil && after > before+1 {
			err = fmt.Errorf("%v passes", after-before)
		}
		return err
	}))
}

// sum adds up the values of a metric.
func sum(text, name string) (total float64, err error) {
	found := false
	for line := range strings.Lines(text) {
		if head, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.Split(head, "{")[0] == name {
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				return 0, fmt.Errorf("metric %s is %q: %w", name, value, err)
			}
			total, found = total+v, true
		}
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return total, nil
}

// reboot cuts host a's power, and starts everything anew.
func (h *healing) reboot(ctx context.Context) (flows, whole time.Duration) {
	h.Helper()
	check(h.T, h.A.Reboot(ctx))
	h.docker = must[*lab.Process](h.T)(h.A.StartDocker(ctx))
	began := time.Now()
	check(h.T, h.StartCompanion(ctx, h.A))
	for i, overlay := range []string{"dcos", "dcos6"} {
		h.pairs[i][0] = h.container(ctx, h.A, overlay)
	}
	check(h.T, h.eventually("traffic after a reboot", h.pairsTalk))
	flows = time.Since(began)
	check(h.T, h.eventually("recovery from a reboot", h.isWhole))
	return flows, time.Since(began)
}

// putForeignScript makes devices, routes and a Docker network of others.
const putForeignScript = `
	ip link add br-other type bridge
	ip link set br-other addrgenmode none
	ip addr add 10.77.0.1/24 dev br-other
	ip link set br-other up
	ip route add 10.78.0.0/16 via 10.77.0.9 dev br-other onlink proto static metric 7
	ip route add 10.79.0.0/16 dev br-other proto 43
	ip link add vx-other type vxlan id 77 dstport 4790 local 127.0.0.1
	ip link set vx-other addrgenmode none
	ip link set vx-other up
	bridge fdb append 02:00:00:00:00:77 dev vx-other dst 127.0.0.77
	docker network create --subnet 10.76.0.0/24 --gateway 10.76.0.1 -o com.docker.network.bridge.name=d0other other`

// putForeignRules puts rules into tables that a fault may flush.
const putForeignRules = `
	for t in iptables ip6tables; do
		$t -w -A FORWARD -i br-other -j ACCEPT
		$t -w -I INPUT 1 -i br-other -j ACCEPT
		$t -w -A OUTPUT -o br-other -j ACCEPT
		$t -w -t nat -A POSTROUTING -o br-other -j MASQUERADE
		$t -w -t mangle -A PREROUTING -i br-other -j MARK --set-mark 7
		$t -w -t raw -A PREROUTING -i br-other -j NOTRACK
	done`

func putForeign(t *testing.T, h *lab.Host) {
	t.Helper()
	must[string](t)(h.Run(t.Context(), "sh", "-ec", putForeignScript))
	must[string](t)(h.Run(t.Context(), "sh", "-ec", putForeignRules))
	check(t, h.Inside(func() error {
		if err := netlink.IpsetCreate("other", "hash:ip", netlink.IpsetCreateOptions{}); err != nil {
			return fmt.Errorf("make an ipset: %w", err)
		}
		return netlink.IpsetAdd("other", &netlink.IPSetEntry{IP: netip.MustParseAddr("10.77.0.3").AsSlice()})
	}))
}

// foreign prints what is on a host and not ours: neither DCOS-OVERLAY's nor
// Docker's own rules, nor such about Docker's bridges.
func foreign(t *testing.T, h *lab.Host) string {
	t.Helper()
	out := must[string](t)(h.Run(t.Context(), "sh", "-c", `
		ip -o addr show dev br-other
		ip -o link show dev br-other
		ip -d -o link show dev vx-other
		bridge fdb show dev vx-other
		ip route show dev br-other
		ip route show default
		ip -6 route show default
		for save in iptables-save ip6tables-save; do
			$save | sed 's/ \[[0-9:]*\]//' | grep -vE '^#|DCOS-OVERLAY|DOCKER|d-dcos|d0other'
		done
		docker network inspect other 2>&1 || true`))
	check(t, h.Inside(func() error {
		sets, err := netlink.IpsetListAll()
		for _, s := range sets {
			if !strings.HasPrefix(s.SetName, "DCOS-OVERLAY") {
				out += fmt.Sprintf("ipset %s %s %v\n", s.SetName, s.TypeName, s.Entries)
			}
		}
		return err
	}))
	return out
}

// run is a fault that a command makes.
func (h *healing) run(script string) func(context.Context) {
	return func(ctx context.Context) {
		h.Helper()
		must[string](h.T)(h.A.Run(ctx, "sh", "-ec", script))
	}
}

// faults are all but the reboot, which takes what is others', too.
func (h *healing) faults() []fault {
	rulesBack := func(ctx context.Context) {
		// The fault took the others' rules of that table.
		for _, table := range []string{"filter", "nat", "mangle", "raw"} {
			must[string](h.T)(h.A.Run(ctx, "sh", "-ec", strings.ReplaceAll(`
				for t in iptables ip6tables; do
					$t-save -t TABLE | grep -E -- ' (-i|-o) br-other ' | sed 's/^-A/-D/' | while read -r rule; do $t -w -t TABLE $rule; done
				done`, "TABLE", table)))
		}
		h.run(putForeignRules)(ctx)
	}
	peer := h.pairs[0][1].IP4
	subnet := netip.PrefixFrom(peer, 24).Masked()
	find := fmt.Sprintf(`via=$(ip route show %s | grep -oE 'via [0-9.]+' | cut -d' ' -f2); mac=$(ip neigh show $via dev vtep1024 | grep -oE 'lladdr [0-9a-f:]+' | cut -d' ' -f2);`, subnet)
	// Of IPv4 an Engine before 28 has made the policy DROP itself, a later one
	// has found packets forwarded already and left it.
	policy := must[string](h.T)(h.A.Run(h.Context(), "sh", "-ec", `iptables-save -t filter | sed -n 's/^:FORWARD \([A-Z]*\) .*/\1/p'`))
	return []fault{
		{name: "VTEP deleted", do: h.run(`ip link del vtep1024`)},
		{name: "VTEP's MAC changed", do: h.run(`ip link set vtep1024 address 02:00:00:00:00:07`)},
		{name: "VTEP's MTU changed", do: h.run(`ip link set vtep1024 mtu 1000`)},
		{name: "VTEP's address deleted", do: h.run(`ip addr flush dev vtep1024`)},
		{name: "VTEP down", do: h.run(`ip link set vtep1024 down`)},
		{name: "a route deleted", do: h.run(fmt.Sprintf(`ip route del %s`, subnet))},
		{name: "a neighbour deleted", do: h.run(find + `ip neigh del $via dev vtep1024`)},
		{name: "a forwarding entry deleted", do: h.run(find + `bridge fdb del $mac dev vtep1024`)},
		{name: "all routes flushed", do: h.run(`ip route flush dev vtep1024; ip -6 route flush dev vtep1024; ip route flush dev m-dcos; ip -6 route flush dev m-dcos6`)},
		{name: "a stray entry on the VTEP", do: h.run(`ip route add 9.0.99.0/24 via 44.128.0.77 dev vtep1024 onlink proto 44; bridge fdb append 00:00:00:00:00:00 dev vtep1024 dst 172.17.0.99`)},
		{name: "forwarding turned off", do: h.run(`sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0`)},
		{name: "m-dcos deleted", do: h.run(`ip link del m-dcos`), flows: h.newTalks, note: "a new container"},
		{name: "m-dcos and m-dcos6 deleted", do: h.run(`ip link del m-dcos; ip link del m-dcos6`), note: "the containers that were on them"},
		{name: "a container's link taken off m-dcos", do: h.run(`for link in $(ip -o link show master m-dcos | grep -oE 'dov[0-9a-f]+'); do ip link set $link nomaster; done`)},
		{name: "iptables -F", do: h.run(`iptables -w -F; ip6tables -w -F`), after: rulesBack},
		{name: "iptables -t nat -F", do: h.run(`iptables -w -t nat -F; ip6tables -w -t nat -F`), after: rulesBack, flows: h.masqueraded},
		{name: "iptables -P FORWARD DROP", do: h.run(`iptables -w -P FORWARD DROP; ip6tables -w -P FORWARD DROP`), after: h.run(`ip6tables -w -P FORWARD ACCEPT; iptables -w -P FORWARD ` + policy)},
		{name: "all chains of ours deleted", do: h.run(`
			for t in iptables ip6tables; do for table in filter nat; do
				$t-save -t $table | grep -v DCOS-OVERLAY | $t-restore -T $table
			done; done`)},
		{name: "dockerd killed and restarted", do: func(ctx context.Context) {
			check(h.T, h.docker.Kill())
			h.docker = must[*lab.Process](h.T)(h.A.StartDocker(ctx))
		}, flows: h.dockerTalks, note: "a new Docker container"},
		{name: "docker network rm dcos", do: h.run(`docker network rm dcos`), flows: h.dockerTalks, note: "a new Docker container"},
		{name: "d-dcos deleted", do: h.run(`ip link del d-dcos`), flows: h.dockerTalks, note: "a new Docker container"},
		{name: "companion killed, VTEP deleted, companion restarted", do: func(ctx context.Context) {
			check(h.T, h.Companions["a"].Signal(unix.SIGKILL))
			<-h.Companions["a"].Done()
			h.run(`ip link del vtep1024`)(ctx)
			check(h.T, h.StartCompanion(ctx, h.A))
		}, note: "from when it is up"},
		{name: "coordinator away for a minute, then VTEP deleted", do: func(ctx context.Context) {
			check(h.T, h.Coordinator.Kill())
			// This is the fault, and nothing may come of it.
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
			}
			check(h.T, h.eventually("traffic without coordinator", h.pairsTalk))
			if now := must[string](h.T)(h.overlays(ctx)); now != h.whole {
				h.Errorf("a minute without coordinator changed the host:\n%s", unlike(h.whole, now))
			}
			h.run(`ip link del vtep1024`)(ctx)
		}, after: func(ctx context.Context) { check(h.T, h.StartCoordinator(ctx)) }},
	}
}

// masqueraded succeeds when containers reach the outside.
func (h *healing) masqueraded(ctx context.Context) error {
	if err := connect(ctx, &h.pairs[0][0].Place, lab.World4); err != nil {
		return err
	}
	return connect(ctx, &h.pairs[1][0].Place, lab.World6)
}

// newTalks succeeds when a new container reaches one on b.
func (h *healing) newTalks(ctx context.Context) error {
	h.n++
	c, err := h.A.MesosContainer(ctx, lab.MesosTask{ID: fmt.Sprint("n", h.n), Conf: scene.CNI("dcos")})
	if err != nil {
		return err
	}
	return errors.Join(connect(ctx, &c.Place, h.pairs[0][1].IP4), c.Delete(ctx))
}

// dockerTalks succeeds when a new Docker container reaches one on b.
func (h *healing) dockerTalks(ctx context.Context) error {
	h.n++
	c, err := h.A.DockerContainer(ctx, fmt.Sprint("d", h.n), "dcos")
	if err != nil {
		return err
	}
	if err := connect(ctx, &c.Place, h.pairs[0][1].IP4); err != nil {
		return err
	}
	return c.Delete(ctx)
}
