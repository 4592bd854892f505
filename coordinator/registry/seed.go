package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/network"
)

// ErrNotConfigured says that etcd holds no network, and none was given.
var ErrNotConfigured = errors.New("etcd holds no network: start a coordinator with --config once")

// Stored returns the network that etcd holds; ErrNotConfigured if none.
func (r *Registry) Stored(ctx context.Context) (network.Network, error) {
	x, err := r.configuration(ctx)
	if err != nil {
		return network.Network{}, err
	}
	if x.baseRev == 0 {
		return network.Network{}, ErrNotConfigured
	}
	return *x.net, nil
}

// Seed writes into etcd what of want is missing there: all of it at first, and
// overlays later. What is stored already stays as it is, for agents live by
// it; each difference is returned as a line for the operator.
func (r *Registry) Seed(ctx context.Context, want network.Network) (differences []string, err error) {
	for range maxAttempts {
		x, err := r.configuration(ctx)
		if err != nil {
			return nil, err
		}
		p, differences := seed(x, want, rand.Text())
		if p.err != nil || len(p.ops) == 0 {
			return differences, p.err
		}
		ok, _, err := r.commit(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("store the network in etcd: %w", err)
		}
		if ok {
			return differences, nil
		}
	}
	return nil, fmt.Errorf("store the network in etcd: it changed %d times meanwhile", maxAttempts)
}

// configuration loads only what is configured, as of one revision.
func (r *Registry) configuration(ctx context.Context) (*index, error) {
	resp, err := r.client.Txn(ctx).Then(
		clientv3.OpGet(keyNetwork), clientv3.OpGet(keyEpoch),
		clientv3.OpGet(dirOverlays, clientv3.WithPrefix()), clientv3.OpGet(dirDeleted, clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		return nil, fmt.Errorf("read the network from etcd: %w", err)
	}
	x := newIndex()
	for _, part := range resp.Responses {
		for _, kv := range part.GetResponseRange().Kvs {
			if _, err := x.apply(keyValue{key: string(kv.Key), value: kv.Value, rev: kv.ModRevision}); err != nil {
				return nil, fmt.Errorf("read the network from etcd: %w", err)
			}
		}
	}
	return x, nil
}

// seed plans what Seed writes; drawn is the name of a store that has none. It
// is pure.
func seed(x *index, want network.Network, drawn string) (*plan, []string) {
	p := &plan{}
	p.unchanged(keyNetwork, x.baseRev)
	var differences []string
	base := x.base
	if x.baseRev == 0 {
		base = want
		base.Overlays = nil
	} else {
		differences = poolDifferences(base, want)
	}
	if x.store == "" {
		p.put(keyEpoch, drawn)
	}
	result := base
	result.Overlays = x.net.Overlays
	order := 0
	for _, o := range x.overlays {
		order = max(order, o.Order)
	}
	added := 0
	for _, o := range want.Overlays {
		if stored, ok := x.overlays[o.Name]; ok {
			differences = append(differences, overlayDifferences(stored, o)...)
			continue
		}
		if since, was := x.deleted[o.Name]; was {
			differences = append(differences, fmt.Sprintf("overlay %s was deleted at %s, and the configuration does not bring it back: PUT %s/%s does",
				o.Name, since.UTC().Format(time.RFC3339), api.PathOverlays, o.Name))
			continue
		}
		next := result
		next.Overlays = append(next.Overlays[:len(next.Overlays):len(next.Overlays)], o)
		if problems := next.Validate(); x.baseRev != 0 && len(problems) > 0 {
			differences = append(differences, fmt.Sprintf("overlay %s is not added, for it does not go with what is stored: %s",
				o.Name, strings.ReplaceAll(problems.Error(), "\n", "; ")))
			continue
		}
		result = next
		added++
		p.unchanged(keyOverlay(o.Name), 0)
		p.put(keyOverlay(o.Name), storedOverlay{Overlay: o, Order: order + added})
	}
	for _, o := range x.net.Overlays {
		if _, ok := want.Overlay(o.Name); !ok {
			differences = append(differences, fmt.Sprintf("overlay %s is stored and not in the configuration", o.Name))
		}
	}
	if x.baseRev == 0 || added > 0 {
		p.put(keyNetwork, base)
	}
	return p, differences
}

func poolDifferences(stored, want network.Network) []string {
	return differing("", []field{
		{"vtep_subnet", stored.VTEPSubnet, want.VTEPSubnet},
		{"vtep_subnet6", stored.VTEPSubnet6, want.VTEPSubnet6},
		{"vtep_mac_oui", strings.ToLower(stored.VTEPMACOUI), strings.ToLower(want.VTEPMACOUI)},
		{"vtep_mtu", stored.VTEPMTU, want.VTEPMTU},
	})
}

func overlayDifferences(stored overlayEntry, want network.Overlay) []string {
	if stored.Deleting {
		return []string{fmt.Sprintf("overlay %s is being deleted", stored.Name)}
	}
	return differing("overlay "+stored.Name+": ", []field{
		{"subnet", stored.Subnet, want.Subnet},
		{"prefix", stored.Prefix, want.Prefix},
		{"subnet6", stored.Subnet6, want.Subnet6},
		{"prefix6", stored.Prefix6, want.Prefix6},
		{"enabled", stored.IsEnabled(), want.IsEnabled()},
		{"max_subnets", stored.SubnetLimit(), want.SubnetLimit()},
		{"docker_prefix", stored.DockerPrefix, want.DockerPrefix},
		{"docker_prefix6", stored.DockerPrefix6, want.DockerPrefix6},
		{"isolated", stored.Isolated, want.Isolated},
		{"static_subnet", stored.StaticSubnet, want.StaticSubnet},
		{"static_subnet6", stored.StaticSubnet6, want.StaticSubnet6},
		{"static_takeover", stored.Takeover(), want.Takeover()},
	})
}

// field is one field's two values, of a comparable type.
type field struct {
	name         string
	stored, want any
}

func differing(where string, fields []field) []string {
	var out []string
	for _, f := range fields {
		if f.stored != f.want {
			out = append(out, fmt.Sprintf("%s%s is %s in etcd and %s in the configuration", where, f.name, show(f.stored), show(f.want)))
		}
	}
	return out
}

func show(v any) string {
	if v == (netip.Prefix{}) || v == 0 {
		return "absent"
	}
	return fmt.Sprint(v)
}
