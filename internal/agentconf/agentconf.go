// Package agentconf is the configuration of one agent: DC/OS's agent.json,
// with more fields. The plugins and the companion read the same file.
package agentconf

import (
	"net/netip"
	"path/filepath"

	"github.com/dcos/dcos-overlay/internal/lease"
)

const (
	// DefaultPath is the file that is read where the CNI configuration names
	// no other.
	DefaultPath = "/etc/dcos-overlay/agent.json"
	// DefaultMaster is the coordinator of a file that names none: one on
	// this machine.
	DefaultMaster = "http://127.0.0.1:64001"
	// DefaultStateDir holds what outlives a reboot: the lease and the id.
	DefaultStateDir = "/var/lib/dcos-overlay"
	// DefaultRunDir holds what is of this boot only: reservations and locks.
	DefaultRunDir = "/run/dcos-overlay"
)

// Config is a validated agent.json; every field has its default.
type Config struct {
	// Path is the file that this came from; empty where there was none and
	// the defaults serve.
	Path string
	// Master are the coordinators' base URLs, tried in order.
	Master []string
	// IP, Interface and IPCIDR say which of the host's addresses is the
	// underlay's; at most one is set. With none it is the source address
	// toward the coordinator.
	IP        netip.Addr
	Interface string
	IPCIDR    netip.Prefix

	Network lease.NetworkConfig
	// VTEPTxOffload false turns the VTEP's transmit checksum offload off.
	VTEPTxOffload bool

	// VXLANFilter drops VXLAN packets that do not come from another agent's
	// underlay address.
	VXLANFilter bool

	StateDir, RunDir string
	// CNIDir is where the companion writes <overlay>.conf; empty: nowhere.
	CNIDir string
	// CNIDataDir is the place of the address reservations; empty means
	// RunDir/networks. Use DataDir.
	CNIDataDir string
	// MaxConfigurationAttempts is DC/OS's; it is read and not needed, for
	// the companion never stops trying.
	MaxConfigurationAttempts int

	// CAFile, CertFile and KeyFile are for https coordinators.
	CAFile, CertFile, KeyFile string
}

// DataDir is where address reservations are kept, one folder an overlay.
func (c *Config) DataDir() string {
	if c.CNIDataDir != "" {
		return c.CNIDataDir
	}
	return filepath.Join(c.RunDir, "networks")
}
