package scene

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/dcos/dcos-overlay/integration/lab"
	"github.com/dcos/dcos-overlay/integration/reach"
	"github.com/dcos/dcos-overlay/internal/masterstate"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Port is where every container serves.
const Port = 8080

// Member is a container of the crowd.
type Member struct {
	*lab.Container
	Host *lab.Host
	// Overlay and Kind (Mesos, Docker) say what it is on and who made it.
	Overlay, Kind, Name string
}

// Addr is the member's address on its overlay.
func (m Member) Addr() netip.Addr {
	if m.Overlay == "dcos6" {
		return m.IP6
	}
	return m.IP4
}

// Crowd starts containers of both kinds on both overlays, two on A and one on
// B of each, all of them serving.
func (s *Scene) Crowd(ctx context.Context) ([]Member, error) {
	var out []Member
	for _, overlay := range []string{"dcos", "dcos6"} {
		for _, h := range []*lab.Host{s.A, s.A, s.B} {
			for _, kind := range []string{"Mesos", "Docker"} {
				m, err := s.start(ctx, h, overlay, kind, len(out))
				if err != nil {
					return nil, err
				}
				out = append(out, m)
			}
		}
	}
	return out, nil
}

func (s *Scene) start(ctx context.Context, h *lab.Host, overlay, kind string, n int) (Member, error) {
	m := Member{Host: h, Overlay: overlay, Kind: kind, Name: fmt.Sprintf("%s%d@%s", kind, n/2%3+1, h.Name)}
	id := fmt.Sprintf("task-%d", n)
	var err error
	if kind == "Docker" {
		m.Container, err = h.DockerContainer(ctx, id, overlay)
	} else {
		m.Container, err = h.MesosContainer(ctx, lab.MesosTask{ID: id, Conf: CNI(overlay)})
	}
	if err != nil {
		return m, fmt.Errorf("start %s container on host %s: %w", kind, h.Name, err)
	}
	_, err = m.Serve(ctx, Port)
	return m, err
}

// ServeHosts makes every host serve as the containers do.
func (s *Scene) ServeHosts(ctx context.Context) error {
	for _, h := range []*lab.Host{s.Lab.Outside, s.Master, s.A, s.B} {
		if _, err := h.Serve(ctx, Port); err != nil {
			return err
		}
	}
	return nil
}

// Checks are all connections that the overlays promise: between any two
// members of an overlay, from hosts to members, and from members to hosts and
// to the outside, where they appear as their host.
func (s *Scene) Checks(ctx context.Context, crowd []Member) ([]reach.Check, error) {
	state, err := s.State(ctx)
	if err != nil {
		return nil, err
	}
	vteps := map[netip.Addr][2]netip.Addr{}
	for _, a := range state.Agents {
		for _, o := range a.Overlays {
			vteps[a.IP] = [2]netip.Addr{o.Backend.VXLAN.VTEPIP.Addr(), o.Backend.VXLAN.VTEPIP6.Addr()}
		}
	}
	var out []reach.Check
	add := func(kind, from, to string, place *lab.Place, addr, source netip.Addr) {
		out = append(out, reach.Check{Kind: kind, From: from, To: to, Place: place, Addr: netip.AddrPortFrom(addr, Port), Source: source})
	}
	for _, overlay := range []string{"dcos", "dcos6"} {
		for _, where := range []string{"on one host", "across hosts"} {
			for _, from := range crowd {
				for _, to := range crowd {
					same := from.Host == to.Host
					if from.Container == to.Container || from.Overlay != overlay || to.Overlay != overlay || same != (where == "on one host") {
						continue
					}
					add(fmt.Sprintf("%s: containers %s", overlay, where), from.Name, to.Name, &from.Place, to.Addr(), from.Addr())
				}
			}
		}
		for _, h := range []*lab.Host{s.Master, s.A, s.B} {
			for _, to := range crowd {
				if to.Overlay != overlay {
					continue
				}
				source := vteps[h.Addr][0]
				if to.Addr().Is6() {
					source = vteps[h.Addr][1]
				}
				if to.Host == h {
					// The nearest address of the host is its bridge's.
					if source, err = gateway(state.Agents, h.Addr, to); err != nil {
						return nil, err
					}
				}
				add(overlay+": hosts to containers", "host "+h.Name, to.Name, &h.Place, to.Addr(), source)
			}
		}
		for _, from := range crowd {
			if from.Overlay != overlay {
				continue
			}
			own, world := from.Host.Addr, lab.World4
			if from.Addr().Is6() {
				own, world = from.Host.Addr6, lab.World6
			}
			add(overlay+": containers to the outside, masqueraded", from.Name, "outside", &from.Place, world, own)
		}
		for _, from := range crowd {
			if from.Overlay != overlay {
				continue
			}
			own := from.Host.Addr
			if from.Addr().Is6() {
				own = from.Host.Addr6
			}
			for _, h := range s.Agents() {
				to, source := h.Addr, own
				if from.Addr().Is6() {
					to = h.Addr6
				}
				if h == from.Host {
					// Nothing is masqueraded on the way to the own host:
					// an executor and its agent see each other as they are.
					source = from.Addr()
				}
				add(overlay+": containers to hosts", from.Name, "host "+h.Name, &from.Place, to, source)
			}
		}
	}
	return out, nil
}

// gateway is the address of the bridge that m is on, from the state.
func gateway(agents []masterstate.Agent, host netip.Addr, m Member) (netip.Addr, error) {
	for _, a := range agents {
		for _, o := range a.Overlays {
			if a.IP != host || o.Info.Name != m.Overlay {
				continue
			}
			bridge := o.MesosBridge
			if m.Kind == "Docker" {
				bridge = o.DockerBridge
			}
			half := bridge.IP
			if m.Addr().Is6() {
				half = bridge.IP6
			}
			return network.Gateway(half).Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the state has no overlay %s on agent %s", m.Overlay, host)
}
