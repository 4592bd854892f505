package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// datagrams is how many a stranger sends.
const datagrams = 20

// TestVXLANFromStrangers: a host that is on the underlay and is no agent
// speaks VXLAN to one that is, to get at a container.
func TestVXLANFromStrangers(t *testing.T) {
	s := newScene(t)
	ctx := t.Context()
	stranger := must[*lab.Host](t)(s.Lab.AddHost(ctx, "stranger", netip.MustParseAddr("172.17.0.66")))
	noDocker := map[string]any{"network_config": map[string]any{"docker_bridge": false}}
	conf := must[[]byte](t)(s.AgentJSON(noDocker))
	for _, h := range s.Agents() {
		s.Companions[h.Name] = must[*lab.Process](t)(h.StartCompanion(ctx, conf))
	}
	target := must[*lab.Container](t)(s.A.MesosContainer(ctx, lab.MesosTask{ID: "target", Conf: scene.CNI("dcos")}))
	must[*lab.Process](t)(target.Serve(ctx, scene.Port))
	peer := must[*lab.Container](t)(s.B.MesosContainer(ctx, lab.MesosTask{ID: "peer", Conf: scene.CNI("dcos")}))
	reaches := func(c *lab.Container) {
		t.Helper()
		began := time.Now()
		to := netip.AddrPortFrom(target.IP4, scene.Port)
		wait, cancel := context.WithTimeout(ctx, hang)
		defer cancel()
		check(t, lab.Until(wait, c.ID+" to reach the target", func(ctx context.Context) error {
			seen, err := c.Dial(ctx, to)
			if err == nil && seen.Addr() != c.IP4 {
				err = fmt.Errorf("it is seen as %s", seen)
			}
			return err
		}))
		t.Logf("%s reaches the target after %s", c.ID, time.Since(began).Round(time.Millisecond))
	}
	reaches(peer)
	awaitFilter(t, s.A, true)

	intrude(t, s.A, stranger, target.IP4)
	received, dropped := udpReceived(t, target), filterDropped(t, s.A)
	inject(t, stranger, target.IP4)
	awaitCount(t, "the filter to drop", dropped+datagrams, func() int { return filterDropped(t, s.A) })
	if got := udpReceived(t, target); got != received {
		t.Errorf("the container received %d datagrams of a stranger", got-received)
	}
	reaches(peer)

	// With the companion gone, and with one that knows nobody yet, the filter
	// stays as it is.
	check(t, s.Companions["a"].Kill())
	check(t, s.Coordinator.Kill())
	s.Companions["a"] = must[*lab.Process](t)(s.A.Start(ctx, "companion", "dcos-overlay-companion"))
	awaitPass(t, s.A)
	dropped = filterDropped(t, s.A)
	inject(t, stranger, target.IP4)
	awaitCount(t, "the filter to drop", dropped+datagrams, func() int { return filterDropped(t, s.A) })
	reaches(peer)
	check(t, s.StartCoordinator(ctx))
	check(t, s.Companions["a"].Stop(ctx))

	// Switched off, the same gets through.
	off := must[[]byte](t)(s.AgentJSON(map[string]any{"network_config": noDocker["network_config"], "vxlan_filter": false}))
	s.Companions["a"] = must[*lab.Process](t)(s.A.StartCompanion(ctx, off))
	awaitFilter(t, s.A, false)
	received = udpReceived(t, target)
	inject(t, stranger, target.IP4)
	awaitCount(t, "the container to receive", received+datagrams, func() int { return udpReceived(t, target) })
	check(t, s.Companions["a"].Stop(ctx))

	// A stranger that becomes an agent is let in as soon as it is known.
	s.Companions["a"] = must[*lab.Process](t)(s.A.StartCompanion(ctx, conf))
	awaitFilter(t, s.A, true)
	must[string](t)(stranger.Run(ctx, "ip", "link", "del", "intruder"))
	s.Companions["stranger"] = must[*lab.Process](t)(stranger.StartCompanion(ctx, conf))
	reaches(must[*lab.Container](t)(stranger.MesosContainer(ctx, lab.MesosTask{ID: "newcomer", Conf: scene.CNI("dcos")})))
}

// intrude gives a stranger a VXLAN device that leads to an agent, and by that
// to a container there.
func intrude(t *testing.T, agent, stranger *lab.Host, container netip.Addr) {
	t.Helper()
	link := must[string](t)(agent.Run(t.Context(), "ip", "-o", "link", "show", "vtep1024"))
	mac := regexp.MustCompile(`link/ether (\S+)`).FindStringSubmatch(link)
	if mac == nil {
		t.Fatalf("no MAC in %s", link)
	}
	must[string](t)(stranger.Run(t.Context(), "sh", "-ec", `
		ip link add intruder type vxlan id 1024 dstport 64000 remote "$0" dev eth0
		ip addr add 44.128.15.250/20 dev intruder
		ip link set intruder up
		ip route add "$1/32" dev intruder src 44.128.15.250
		ip neigh add "$1" lladdr "$2" dev intruder nud permanent`,
		agent.Addr.String(), container.String(), mac[1]))
}

// inject sends datagrams to a port of the container's that nobody listens on.
func inject(t *testing.T, stranger *lab.Host, container netip.Addr) {
	t.Helper()
	must[string](t)(stranger.Run(t.Context(), "bash", "-ec",
		`for i in $(seq "$1"); do echo "$i" >"/dev/udp/$0/7777"; done`, container.String(), strconv.Itoa(datagrams)))
}

// udpReceived counts the datagrams that ever reached the container, whether
// or not somebody listened.
func udpReceived(t *testing.T, c *lab.Container) int {
	t.Helper()
	text := must[string](t)(c.Run(t.Context(), "cat", "/proc/thread-self/net/snmp"))
	m := regexp.MustCompile(`(?m)^Udp: (\d+) (\d+) `).FindStringSubmatch(text)
	if m == nil || !strings.Contains(text, "Udp: InDatagrams NoPorts ") {
		t.Fatalf("no counters of UDP in %s", text)
	}
	return must[int](t)(strconv.Atoi(m[1])) + must[int](t)(strconv.Atoi(m[2]))
}

// filterDropped counts the packets that the host's filter dropped.
func filterDropped(t *testing.T, h *lab.Host) int {
	t.Helper()
	text := must[string](t)(h.Run(t.Context(), "iptables-save", "-c", "-t", "filter"))
	m := regexp.MustCompile(`(?m)^\[(\d+):\d+\] -A DCOS-OVERLAY-INPUT .*-j DROP$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("host %s has no filter:\n%s", h.Name, text)
	}
	return must[int](t)(strconv.Atoi(m[1]))
}

// awaitFilter waits until the host has a filter, or has none.
func awaitFilter(t *testing.T, h *lab.Host, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, fmt.Sprintf("filter %v on host %s", want, h.Name), func(ctx context.Context) error {
		text, err := h.Run(ctx, "iptables-save", "-t", "filter")
		if err == nil && strings.Contains(text, "-A INPUT -j DCOS-OVERLAY-INPUT\n") != want {
			err = fmt.Errorf("the rules are %s", text)
		}
		return err
	}))
}

// awaitPass waits until the host's companion has compared everything once.
func awaitPass(t *testing.T, h *lab.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, "a pass of the companion of host "+h.Name, func(ctx context.Context) error {
		_, body, err := h.HTTP(ctx, http.MethodGet, "http://127.0.0.1:64002/metrics", nil)
		if err == nil && !regexp.MustCompile(`(?m)^dcos_overlay_companion_passes_total [1-9]`).Match(body) {
			err = errors.New("there was none yet")
		}
		return err
	}))
}

func awaitCount(t *testing.T, what string, want int, count func() int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, what, func(context.Context) error {
		if got := count(); got < want {
			return fmt.Errorf("it is %d, not %d", got, want)
		}
		return nil
	}))
}
