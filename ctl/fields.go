package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dcos/dcos-overlay/internal/network"
)

// overlayFields are the flags that say what an overlay is to be.
type overlayFields struct {
	flags *pflag.FlagSet

	subnet, subnet6, staticSubnet, staticSubnet6, takeover   string
	prefix, prefix6, dockerPrefix, dockerPrefix6, maxSubnets int
	isolated                                                 bool
}

// newOverlayFields gives cmd the flags.
func newOverlayFields(cmd *cobra.Command) *overlayFields {
	v := &overlayFields{flags: pflag.NewFlagSet("", pflag.ContinueOnError)}
	f := v.flags
	f.StringVar(&v.subnet, "subnet", "", "its IPv4 space, such as 10.20.0.0/16")
	f.IntVar(&v.prefix, "prefix", 0, "length of one agent's IPv4 subnet, such as 26")
	f.StringVar(&v.subnet6, "subnet6", "", "its IPv6 space, such as fd01:c::/64")
	f.IntVar(&v.prefix6, "prefix6", 0, "length of one agent's IPv6 subnet, such as 80")
	f.IntVar(&v.maxSubnets, "max-subnets", 0, fmt.Sprintf("how many subnets of each family one agent may hold; 0 for the default, %d", network.DefaultMaxSubnets))
	f.IntVar(&v.dockerPrefix, "docker-prefix", 0, "length of the Docker network's part of an agent's IPv4 subnet, such as 28; 0 for a half")
	f.IntVar(&v.dockerPrefix6, "docker-prefix6", 0, "the same for IPv6")
	f.StringVar(&v.staticSubnet, "static-subnet", "", "the part of its IPv4 space for fixed addresses, such as 10.20.255.0/24")
	f.StringVar(&v.staticSubnet6, "static-subnet6", "", "the same for IPv6")
	f.StringVar(&v.takeover, "static-takeover", "", fmt.Sprintf("how long an agent must be silent before others can take its fixed addresses, such as 90s (default %s)", network.DefaultStaticTakeover))
	f.BoolVar(&v.isolated, "isolated", false, "keep its containers and those of other overlays apart")
	cmd.Flags().AddFlagSet(f)
	return v
}

// given tells whether the command line has any of them.
func (v *overlayFields) given() (any bool) {
	v.flags.VisitAll(func(f *pflag.Flag) { any = any || f.Changed })
	return any
}

// apply sets in o what the command line says. An empty range takes away the
// one that there is.
func (v *overlayFields) apply(o *network.Overlay) error {
	var wrong []error
	v.flags.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		var err error
		switch f.Name {
		case "subnet":
			err = setPrefix(&o.Subnet, v.subnet)
		case "prefix":
			o.Prefix = v.prefix
		case "subnet6":
			err = setPrefix(&o.Subnet6, v.subnet6)
		case "prefix6":
			o.Prefix6 = v.prefix6
		case "max-subnets":
			o.MaxSubnets = v.maxSubnets
		case "docker-prefix":
			o.DockerPrefix = v.dockerPrefix
		case "docker-prefix6":
			o.DockerPrefix6 = v.dockerPrefix6
		case "static-subnet":
			err = setPrefix(&o.StaticSubnet, v.staticSubnet)
		case "static-subnet6":
			err = setPrefix(&o.StaticSubnet6, v.staticSubnet6)
		case "static-takeover":
			o.StaticTakeover, err = network.ParseDuration(v.takeover)
		case "isolated":
			o.Isolated = v.isolated
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("--%s: %w", f.Name, err))
		}
	})
	if len(wrong) > 0 {
		return usageError{errors.Join(wrong...)}
	}
	return nil
}

func setPrefix(p *netip.Prefix, text string) (err error) {
	*p = netip.Prefix{}
	if text == "" {
		return nil
	}
	if *p, err = netip.ParsePrefix(text); err != nil {
		return fmt.Errorf("%q is not an address range such as 10.20.0.0/16", text)
	}
	return nil
}
