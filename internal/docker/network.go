package docker

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

// Network is the Docker network of one overlay on this agent.
type Network struct {
	// Name is the overlay's, and the Docker network's.
	Name string
	// Bridge is the device that Docker makes for it.
	Bridge string
	// V4 and V6 are the Docker halves of the agent's subnets; the zero Prefix
	// where the overlay has none of that family.
	V4, V6 netip.Prefix
	// MTU is in bytes; 0 leaves it to Docker.
	MTU int
}

// Of is the Docker network of an overlay that this agent holds subnets of, with
// the given MTU in bytes; false where it holds none.
func Of(o lease.Overlay, mtu int) (Network, bool) {
	n := Network{Name: o.Name, Bridge: network.DockerBridgeName(o.Name), MTU: mtu}
	n.V4, n.V6 = o.DockerSide()
	return n, n.V4.IsValid() || n.V6.IsValid()
}

// Options of Docker's bridge driver.
const (
	optBridge      = "com.docker.network.bridge.name"
	optMasquerade  = "com.docker.network.bridge.enable_ip_masquerade"
	optMTU         = "com.docker.network.driver.mtu"
	optGatewayMode = "com.docker.network.bridge.gateway_mode_ipv" // then 4 or 6
)

// newBridges is the API version of Engine 28. From it on a bridge network can
// do without IPv4, and drops in table raw whatever is routed to its containers
// from elsewhere, as other agents' traffic is, unless its gateway mode is
// nat-unprotected (https://github.com/moby/moby/pull/48597).
const newBridges = "1.48"

// request is what creates n on an Engine that speaks the given API version.
func request(n Network, apiVersion string) client.NetworkCreateOptions {
	modern := versions.GreaterThanOrEqualTo(apiVersion, newBridges)
	on, off := true, false
	want := client.NetworkCreateOptions{
		Driver: "bridge",
		IPAM:   &apinetwork.IPAM{Driver: "default"},
		Labels: map[string]string{Label: n.Name},
		Options: map[string]string{
			optBridge: n.Bridge,
			// Ours knows all overlays; Docker's would translate what goes from
			// one agent to another.
			optMasquerade: "false",
		},
	}
	if n.MTU != 0 {
		want.Options[optMTU] = strconv.Itoa(n.MTU)
	}
	for _, half := range n.halves() {
		want.IPAM.Config = append(want.IPAM.Config, apinetwork.IPAMConfig{
			Subnet: half, Gateway: network.Gateway(half).Addr(),
		})
		if modern {
			want.Options[gatewayMode(half)] = "nat-unprotected"
		}
	}
	if n.V6.IsValid() {
		want.EnableIPv6 = &on
	}
	if !n.V4.IsValid() && modern {
		want.EnableIPv4 = &off
	}
	return want
}

func gatewayMode(half netip.Prefix) string {
	if half.Addr().Is6() {
		return optGatewayMode + "6"
	}
	return optGatewayMode + "4"
}

// halves are the subnets that there are, IPv4 first.
func (n Network) halves() []netip.Prefix {
	return slices.DeleteFunc([]netip.Prefix{n.V4.Masked(), n.V6.Masked()}, func(p netip.Prefix) bool { return !p.IsValid() })
}

// describe is n for messages.
func (n Network) describe() string {
	return fmt.Sprintf("%s, bridge %s", join(n.halves()), n.Bridge)
}

// identity says what makes have another network than the wanted one, each as
// in "subnet 10.1.0.0/24 instead of 9.0.1.128/25".
func identity(have apinetwork.Inspect, n Network, want client.NetworkCreateOptions) []string {
	var wrong []string
	if have.Driver != want.Driver {
		wrong = append(wrong, differs("driver", have.Driver, want.Driver))
	}
	var subnets []netip.Prefix
	for _, c := range have.IPAM.Config {
		// Without IPv4 of its own, an Engine before 28 adds a subnet from its
		// default pools. It does no harm.
		if c.Subnet.IsValid() && (n.V4.IsValid() || c.Subnet.Addr().Is6()) {
			subnets = append(subnets, c.Subnet.Masked())
		}
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	if halves := n.halves(); !slices.Equal(subnets, halves) {
		wrong = append(wrong, differs("subnet", join(subnets), join(halves)))
	}
	if got := have.Options[optBridge]; got != n.Bridge {
		wrong = append(wrong, differs("bridge", got, n.Bridge))
	}
	return wrong
}

// details says what else is wrong with a network of ours.
func details(have apinetwork.Inspect, n Network, want client.NetworkCreateOptions) []string {
	var wrong []string
	gateways := map[netip.Prefix]netip.Addr{}
	for _, c := range have.IPAM.Config {
		gateways[c.Subnet.Masked()] = c.Gateway
	}
	for _, c := range want.IPAM.Config {
		if got, there := gateways[c.Subnet]; there && got != c.Gateway {
			wrong = append(wrong, differs("gateway", fmt.Sprint(got), c.Gateway.String()))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want.Options)) {
		if got := have.Options[key]; key != optBridge && got != want.Options[key] {
			wrong = append(wrong, differs("option "+key, got, want.Options[key]))
		}
	}
	if have.EnableIPv6 != n.V6.IsValid() {
		wrong = append(wrong, differs("IPv6", onOff(have.EnableIPv6), onOff(n.V6.IsValid())))
	}
	return wrong
}

func differs(what, got, want string) string {
	if got == "" {
		got = "none"
	}
	return fmt.Sprintf("%s %s instead of %s", what, got, want)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// conflict says why the existing network other keeps n from being created, or
// nothing.
func conflict(other apinetwork.Network, n Network) string {
	for _, c := range other.IPAM.Config {
		for _, half := range n.halves() {
			if c.Subnet.IsValid() && c.Subnet.Overlaps(half) {
				return fmt.Sprintf("has subnet %s", c.Subnet)
			}
		}
	}
	if other.Options[optBridge] == n.Bridge {
		return fmt.Sprintf("has bridge %s", n.Bridge)
	}
	return ""
}

// containers names those that are connected to have.
func containers(have apinetwork.Inspect) string {
	const most = 3
	var names []string
	for _, c := range have.Containers {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	more := ""
	if n := len(names); n > most {
		names, more = names[:most], fmt.Sprintf(" and %d more", n-most)
	}
	return strings.Join(names, ", ") + more
}

// capacity is the number of addresses that containers can have in p: all but
// the first, which names the subnet, the gateway and IPv4's broadcast address.
func capacity(p netip.Prefix) int64 {
	hostBits := p.Addr().BitLen() - p.Bits()
	if hostBits >= 63 {
		return math.MaxInt64
	}
	reserved := int64(2)
	if p.Addr().Is4() {
		reserved = 3
	}
	return max(int64(1)<<hostBits-reserved, 0)
}

func join(ps []netip.Prefix) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return strings.Join(out, " and ")
}
