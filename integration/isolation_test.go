package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/scene"
)

// resident is a container of one of two overlays.
type resident struct {
	*lab.Container
	host          *lab.Host
	overlay, kind string
}

func (r resident) addr(v6 bool) netip.AddrPort {
	if v6 {
		return netip.AddrPortFrom(r.IP6, scene.Port)
	}
	return netip.AddrPortFrom(r.IP4, scene.Port)
}

// TestIsolation switches an overlay between isolated and open while containers
// of both kinds run on it and on another one, on two hosts: who reaches whom
// is asked each time, in both families.
func TestIsolation(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	ctx := t.Context()
	check(t, s.Up(ctx))
	put := func(overlay, body string, want int) {
		t.Helper()
		url := s.Master.CoordinatorURL() + "/v1/overlays/" + overlay
		code, answer, err := s.Master.HTTP(ctx, http.MethodPut, url, []byte(body))
		if err != nil || code != want {
			t.Fatalf("PUT %s %s: %d %s, %v; want %d", url, body, code, answer, err, want)
		}
	}
	const red = `{"subnet": "10.20.0.0/16", "prefix": 24, "subnet6": "fd01:20::/64", "prefix6": 80, "isolated": %v}`
	put("red", fmt.Sprintf(red, true), http.StatusCreated)
	put("blue", `{"subnet": "10.30.0.0/16", "prefix": 24, "subnet6": "fd01:30::/64", "prefix6": 80}`, http.StatusCreated)

	var all []resident
	for _, overlay := range []string{"red", "blue"} {
		for _, h := range s.Agents() {
			awaitDockerNetwork(t, h, overlay)
			m := must[*lab.Container](t)(h.MesosContainer(ctx, lab.MesosTask{ID: "mesos-" + overlay, Conf: scene.CNI(overlay)}))
			d := must[*lab.Container](t)(h.DockerContainer(ctx, "docker-"+overlay, overlay))
			all = append(all, resident{m, h, overlay, "Mesos"}, resident{d, h, overlay, "Docker"})
		}
	}
	for _, r := range all {
		must[*lab.Process](t)(r.Serve(ctx, scene.Port))
	}
	must[*lab.Process](t)(s.Lab.Outside.Serve(ctx, scene.Port))

	// One connection inside the overlay is busy throughout.
	through := must[*lab.Stream](t)(all[0].Stream(ctx, all[2].addr(false), time.Hour))
	reachable(t, all, true)

	put("red", fmt.Sprintf(red, false), http.StatusOK)
	reachable(t, all, false)

	// What was agreed upon while it was open ends, too.
	across := must[*lab.Stream](t)(all[0].Stream(ctx, all[6].addr(false), time.Hour))
	put("red", fmt.Sprintf(red, true), http.StatusOK)
	if _, err := across.Wait(ctx); err == nil {
		t.Error("a connection to another overlay outlives the isolation")
	}
	reachable(t, all, true)

	gap, err := through.Finish(ctx)
	if err != nil {
		t.Errorf("the connection inside the overlay broke: %v", err)
	}
	t.Logf("longest gap of a connection inside the overlay, over both switches: %s", gap.Round(time.Millisecond))
	for _, r := range all {
		check(t, r.Delete(ctx))
	}
}

// awaitDockerNetwork waits for the Docker network of an overlay.
func awaitDockerNetwork(t *testing.T, h *lab.Host, overlay string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check(t, lab.Until(ctx, "the Docker network "+overlay+" on host "+h.Name, func(ctx context.Context) error {
		_, err := h.Run(ctx, "docker", "network", "inspect", overlay)
		return err
	}))
}

// reachable asks who reaches whom, until it is as it should be or a while has
// passed, and shows it.
func reachable(t *testing.T, all []resident, isolated bool) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	var table string
	err := lab.Until(ctx, fmt.Sprintf("overlay red to be isolated: %v", isolated), func(ctx context.Context) error {
		wrong := 0
		if table, wrong = matrix(ctx, all, isolated); wrong > 0 {
			return fmt.Errorf("%d ways are not as they should be", wrong)
		}
		return nil
	})
	t.Logf("red is isolated: %v, as seen %s later\n%s", isolated, time.Since(began).Round(time.Millisecond), table)
	check(t, err)
}

// matrix is who reaches whom. Ways to the outside and from the agents are
// always open; wrong counts those ways that are not as they should be.
func matrix(ctx context.Context, all []resident, isolated bool) (table string, wrong int) {
	type way struct {
		label  string
		from   *lab.Place
		to     netip.AddrPort
		open   bool
		opened bool
	}
	var ways []*way
	where := func(a, b *lab.Host) string {
		if a == b {
			return "same host"
		}
		return "other host"
	}
	var hosts []*lab.Host
	for _, r := range all {
		if !slices.Contains(hosts, r.host) {
			hosts = append(hosts, r.host)
		}
	}
	for _, v6 := range []bool{false, true} {
		for _, from := range hosts {
			for _, to := range all {
				ways = append(ways, &way{label: fmt.Sprintf("host\t%s %s\t%s", to.overlay, to.kind, where(from, to.host)),
					from: &from.Place, to: to.addr(v6), open: true})
			}
		}
		for _, from := range all {
			for _, to := range all {
				if from.Container == to.Container {
					continue
				}
				ways = append(ways, &way{
					label: fmt.Sprintf("%s %s\t%s %s\t%s", from.overlay, from.kind, to.overlay, to.kind, where(from.host, to.host)),
					from:  &from.Place, to: to.addr(v6), open: !isolated || from.overlay == to.overlay,
				})
			}
			world := lab.World4
			if v6 {
				world = lab.World6
			}
			ways = append(ways, &way{label: fmt.Sprintf("%s %s\toutside\t", from.overlay, from.kind),
				from: &from.Place, to: netip.AddrPortFrom(world, scene.Port), open: true})
		}
	}
	var group sync.WaitGroup
	places := make(chan struct{}, 16)
	for _, w := range ways {
		group.Add(1)
		go func() {
			defer group.Done()
			places <- struct{}{}
			defer func() { <-places }()
			// A second is a thousand times what an open way takes.
			_, err := w.from.Run(ctx, "probe", "dial", "-timeout", "1s", w.to.String())
			w.opened = err == nil
		}()
	}
	group.Wait()

	var out strings.Builder
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "from\tto\twhere\tIPv4\tIPv6")
	seen := map[string]bool{}
	for _, w := range ways {
		if w.opened != w.open {
			wrong++
		}
		if seen[w.label] {
			continue
		}
		seen[w.label] = true
		fmt.Fprint(t, w.label)
		for _, v6 := range []bool{false, true} {
			word := ""
			for _, x := range ways {
				if x.label != w.label || x.to.Addr().Is6() != v6 {
					continue
				}
				now := "cut"
				if x.opened {
					now = "reached"
				}
				if x.opened != x.open {
					now = "WRONG: " + now
				}
				if word == "" || strings.HasPrefix(now, "WRONG") {
					word = now
				}
			}
			fmt.Fprintf(t, "\t%s", word)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	return out.String(), wrong
}
