// Command demo shows the main job on one machine: a coordinator and two
// agents, each a host made of namespaces, with containers of the Mesos kind and
// of the Docker kind that reach each other. It leaves nothing behind.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/reach"
	"github.com/dcos/dcos-overlay/integration/scene"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

// patience bounds the whole demo.
const patience = 10 * time.Minute

func main() {
	bin := flag.String("bin", "", "directory of the built programs (default: build them into a temporary one)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, patience)
	err := run(ctx, *bin, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, out io.Writer) (err error) {
	say := func(format string, args ...any) { fmt.Fprintf(out, "==> "+format+"\n", args...) }
	if bin == "" {
		if bin, err = lab.TempDir(); err != nil {
			return err
		}
		defer os.RemoveAll(bin)
		say("building the programs, cnitool and the stock CNI plugins")
		if err := lab.Build(ctx, bin); err != nil {
			return err
		}
	}
	l, err := lab.New(lab.Options{Bin: bin})
	if err != nil {
		return err
	}
	defer func() {
		say("cleaning up")
		if closeErr := l.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
			return
		}
		say("nothing is left: no namespace, device, rule, process or directory")
	}()

	say("host master (172.17.0.2): coordinator with embedded etcd, configured by DC/OS's sample master.json")
	s, err := scene.New(ctx, l)
	if err != nil {
		return err
	}
	say("hosts master, a (172.17.0.4), b (172.17.0.3): companions; a Docker Engine on a and on b")
	if err := s.Up(ctx); err != nil {
		return err
	}
	if err := printState(ctx, s, out); err != nil {
		return err
	}
	say("containers, two on host a and one on host b of each kind and overlay: by the plugin as Mesos calls it, and by docker run")
	began := time.Now()
	crowd, err := s.Crowd(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "    %d containers after %s\n", len(crowd), time.Since(began).Round(time.Millisecond))
	if err := s.ServeHosts(ctx); err != nil {
		return err
	}
	say("who reaches whom over TCP, and who the server sees")
	checks, err := s.Checks(ctx, crowd)
	if err != nil {
		return err
	}
	began = time.Now()
	rows := reach.Run(ctx, checks)
	if err := reach.Print(out, rows, time.Since(began)); err != nil {
		return err
	}
	if err := printKernel(ctx, s, out); err != nil {
		return err
	}
	say("the same by hand: cnitool on host b")
	if err := byHand(ctx, s, out); err != nil {
		return err
	}
	say("removing the containers")
	for _, m := range crowd {
		if err := m.Delete(ctx); err != nil {
			return err
		}
	}
	if n := len(reach.Failed(rows)); n > 0 {
		return fmt.Errorf("%d of %d connections are not as they should be", n, len(rows))
	}
	return nil
}

func printState(ctx context.Context, s *scene.Scene, out io.Writer) error {
	state, err := s.State(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "==> GET %s/overlay-master/state, in short\n", s.Master.CoordinatorURL())
	for _, a := range state.Agents {
		for _, o := range a.Overlays {
			fmt.Fprintf(out, "    agent %-11s overlay %-6s subnet %-20s Mesos %-20s Docker %-24s VTEP %s %s\n", a.IP, o.Info.Name,
				either(o.Subnet, o.Subnet6), half(o.MesosBridge), half(o.DockerBridge), o.Backend.VXLAN.VTEPIP, o.State.Status)
		}
	}
	return nil
}

func either(a, b netip.Prefix) netip.Prefix {
	if a.IsValid() {
		return a
	}
	return b
}

func half(b *masterstate.Bridge) string {
	if b == nil {
		return "-"
	}
	return either(b.IP, b.IP6).String()
}

// printKernel shows what host a's kernel holds for the other agents, each line
// beside what REFERENCE says: neighbour, forwarding entry and route.
func printKernel(ctx context.Context, s *scene.Scene, out io.Writer) error {
	state, err := s.State(ctx)
	if err != nil {
		return err
	}
	have := ""
	for _, command := range []string{"ip route show proto 44", "ip -6 route show proto 44", "ip neigh show nud permanent", "bridge fdb show"} {
		text, err := s.A.Run(ctx, strings.Fields(command)...)
		if err != nil {
			return err
		}
		have += text
	}
	fmt.Fprintf(out, "==> the kernel of host a: what should be there for each other agent, and the line that is\n")
	missing := 0
	show := func(want string) {
		found := "MISSING"
		for _, l := range strings.Split(have, "\n") {
			if holds(strings.Fields(l), strings.Fields(want)) {
				found = l
			}
		}
		if found == "MISSING" {
			missing++
		}
		fmt.Fprintf(out, "    %-58s | %s\n", want, strings.TrimSpace(found))
	}
	for _, a := range state.Agents {
		if a.IP == s.A.Addr || len(a.Overlays) == 0 {
			continue
		}
		v := a.Overlays[0].Backend.VXLAN
		fmt.Fprintf(out, "  agent %s\n", a.IP)
		show(fmt.Sprintf("%s dev vtep1024 lladdr %s PERMANENT", v.VTEPIP.Addr(), v.VTEPMAC))
		show(fmt.Sprintf("%s dev vtep1024 lladdr %s PERMANENT", v.VTEPIP6.Addr(), v.VTEPMAC))
		show(fmt.Sprintf("%s dev vtep1024 dst %s", v.VTEPMAC, a.IP))
		for _, o := range a.Overlays {
			if o.Subnet.IsValid() {
				show(fmt.Sprintf("%s via %s dev vtep1024", o.Subnet, v.VTEPIP.Addr()))
			}
			if o.Subnet6.IsValid() {
				show(fmt.Sprintf("%s via %s dev vtep1024", o.Subnet6, v.VTEPIP6.Addr()))
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d entries are missing in the kernel of host a", missing)
	}
	return nil
}

// holds tells whether line begins with the words of want, perhaps with others
// between them.
func holds(line, want []string) bool {
	for i, w := range want {
		at := slices.Index(line, w)
		if at < 0 || i == 0 && at != 0 {
			return false
		}
		line = line[at+1:]
	}
	return true
}

func byHand(ctx context.Context, s *scene.Scene, out io.Writer) error {
	conf := []byte(`{"cniVersion": "1.0.0", "name": "dcos", "type": "dcos-overlay", "ipam": {"type": "dcos-ipam"}}`)
	c, err := s.B.CNIToolContainer(ctx, "by-hand", conf)
	if err != nil {
		return err
	}
	var result struct {
		IPs []struct{ Address, Gateway string }
	}
	if err := json.Unmarshal(c.Result, &result); err != nil {
		return err
	}
	fmt.Fprintf(out, "    cnitool add dcos %s: %s, gateway %s\n", c.Netns, result.IPs[0].Address, result.IPs[0].Gateway)
	return c.Delete(ctx)
}
