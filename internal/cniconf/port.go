package cniconf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Port is one port of the host that leads to one of the container, in the
// words of the CNI convention for runtimeConfig.portMappings.
type Port struct {
	HostPort      int `json:"hostPort"`
	ContainerPort int `json:"containerPort"`
	// Protocol is tcp, udp or sctp; empty means tcp.
	Protocol string `json:"protocol"`
	// HostIP limits the mapping to one address of the host.
	HostIP string `json:"hostIP,omitempty"`
}

func (p Port) String() string {
	host := fmt.Sprint(p.HostPort)
	if p.HostIP != "" {
		host = p.HostIP + " port " + host
	}
	return fmt.Sprintf("%s to %d/%s", host, p.ContainerPort, p.Protocol)
}

// mesosPort is Mesos's NetworkInfo.PortMapping.
type mesosPort struct {
	HostPort      int    `json:"host_port"`
	ContainerPort int    `json:"container_port"`
	Protocol      string `json:"protocol"`
}

// ports are those of both spellings, each once.
func (c *Conf) ports(w *wishes) ([]Port, error) {
	if !c.MapPorts {
		return nil, nil
	}
	asked := slices.Clone(w.RuntimeConfig.Ports)
	for _, p := range w.Args.Mesos.NetworkInfo.PortMappings {
		asked = append(asked, Port{HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
	}
	var out []Port
	for _, p := range asked {
		p.Protocol = strings.ToLower(first(p.Protocol, "tcp"))
		if err := p.check(); err != nil {
			return nil, err
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (p Port) check() error {
	for _, number := range []int{p.HostPort, p.ContainerPort} {
		if number < 1 || number > 65535 {
			return fmt.Errorf("port mapping %s: ports are 1 to 65535", p)
		}
	}
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Protocol) {
		return fmt.Errorf("port mapping %s: the protocol is tcp, udp or sctp", p)
	}
	if _, err := netip.ParseAddr(p.HostIP); p.HostIP != "" && err != nil {
		return fmt.Errorf("port mapping %s: %q is no address of a host", p, p.HostIP)
	}
	return nil
}
