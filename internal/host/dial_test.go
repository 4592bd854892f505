package host

import (
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/apiclient"
)

// direct asks coordinators in the test's own process.
func direct(conf agentconf.Config, ip netip.Addr) (Coordinator, error) {
	return apiclient.ForAgent(conf, ip)
}
