package registry

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/dcos/dcos-overlay/internal/network"
)

// prefix is where everything is in etcd. What each key holds is in the design:
// values are JSON.
const prefix = "/dcos-overlay/v1/"

const (
	keyNetwork         = prefix + "network"
	dirOverlays        = prefix + "overlays/"
	dirAgents          = prefix + "agents/"
	dirIDs             = prefix + "ids/"
	dirVTEPs           = prefix + "vteps/"
	dirSubnets         = prefix + "subnets/"
	dirReleasedVTEPs   = prefix + "released/vteps/"
	dirReleasedSubnets = prefix + "released/subnets/"
	dirAlive           = prefix + "alive/"
	dirSilent          = prefix + "silent/"
	dirMesos           = prefix + "mesos/"
	dirDeleted         = prefix + "deleted-overlays/"
	dirImports         = prefix + "imports/"
	dirAddresses       = prefix + "addresses/"
	dirReservations    = prefix + "reservations/"
	keyEpoch           = prefix + "epoch"
)

// directories are what an index is made of, beside two single keys. Overlays
// come first, for pools are cut anew when they come later.
func directories() []string {
	return []string{
		dirOverlays, dirAgents, dirSubnets, dirIDs, dirVTEPs, dirAlive,
		dirReleasedVTEPs, dirReleasedSubnets, dirSilent, dirMesos, dirDeleted, dirAddresses, dirReservations,
	}
}

func keyOverlay(name string) string { return dirOverlays + name }
func keyAgent(ip netip.Addr) string { return dirAgents + ip.String() }
func keyID(id string) string        { return dirIDs + id }
func keyAlive(ip netip.Addr) string { return dirAlive + ip.String() }

func keySilent(ip netip.Addr) string { return dirSilent + ip.String() }
func keyMesos(ip netip.Addr) string  { return dirMesos + ip.String() }
func keyDeleted(name string) string  { return dirDeleted + name }
func keyImport(digest string) string { return dirImports + digest }

// dirSubnetsOf is where the subnets of one overlay are.
func dirSubnetsOf(overlay string) string { return dirSubnets + overlay + "/" }

// The network key holds a network.Network without overlays: the VTEP pools.
// Whoever changes an overlay writes that key as well, so that its revision is
// the version of the whole configuration.

// storedOverlay is the value of an overlay's key.
type storedOverlay struct {
	network.Overlay
	// Order is the overlay's place in the configuration.
	Order int `json:"order"`
	// Deleting says that the overlay goes as soon as nobody holds of it.
	Deleting bool `json:"deleting,omitempty"`
}

// storedTime is the value of a key below released/, silent/, deleted-overlays/
// or imports/: since when it is so.
type storedTime struct {
	Since time.Time `json:"since"`
}

// unit is something leased: a VTEP address, a subnet or a fixed address, with
// the key that makes it unique and the key under which it rests when it is
// released; a fixed address, which goes where its container goes, rests nowhere.
type unit struct {
	pool    poolID
	prefix  netip.Prefix
	key     string
	restKey string
}

// poolID names an allocator's pool: an overlay's or, with no overlay, the
// VTEPs', of one family.
type poolID struct {
	overlay string
	v6      bool
}

// String names u for people.
func (u unit) String() string {
	if u.pool.overlay == "" {
		return "VTEP " + u.prefix.Addr().String()
	}
	return fmt.Sprintf("%s of overlay %s", u.prefix, u.pool.overlay)
}

func vtepUnit(ip netip.Addr) unit {
	text := ip.String()
	return unit{
		pool:    poolID{v6: ip.Is6()},
		prefix:  netip.PrefixFrom(ip, ip.BitLen()),
		key:     dirVTEPs + text,
		restKey: dirReleasedVTEPs + text,
	}
}

func subnetUnit(overlay string, p netip.Prefix) unit {
	text := p.String()
	return unit{
		pool:    poolID{overlay: overlay, v6: p.Addr().Is6()},
		prefix:  p,
		key:     dirSubnetsOf(overlay) + text,
		restKey: dirReleasedSubnets + overlay + "/" + text,
	}
}

// parseUnit reads what follows vteps/, subnets/ or the like in a key: a pool,
// and which unit of it.
func parseUnit(vtep bool, rest string) (pool poolID, prefix netip.Prefix, ok bool) {
	if vtep {
		ip, err := netip.ParseAddr(rest)
		return poolID{v6: ip.Is6()}, netip.PrefixFrom(ip, ip.BitLen()), err == nil
	}
	overlay, cidr, _ := strings.Cut(rest, "/")
	p, err := netip.ParsePrefix(cidr)
	return poolID{overlay: overlay, v6: p.Addr().Is6()}, p, err == nil && overlay != ""
}
