package host

import (
	"net/netip"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/errand"
)

// ByErrand is a Dialer that has the program errand.Program ask, which is looked
// for beside the running one, and in cniPath.
func ByErrand(cniPath string) Dialer {
	return func(conf agentconf.Config, ip netip.Addr) (Coordinator, error) {
		program, err := errand.Find(cniPath)
		if err != nil {
			return nil, err
		}
		return errand.Open(program, errand.Options{
			Masters: conf.Master, LocalIP: ip, CAFile: conf.CAFile, CertFile: conf.CertFile, KeyFile: conf.KeyFile,
		})
	}
}
