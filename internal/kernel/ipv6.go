package kernel

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrIPv6Off is in the chain of an error about IPv6 that this host does not do.
var ErrIPv6Off = errors.New("IPv6 is off on this host")

// IPv6 fails, with ErrIPv6Off in the chain and what to do about it, where the
// device called name has no IPv6, or would have none if it were made now.
func (k *Kernel) IPv6(name string) error {
	return k.inside(func() error {
		for _, device := range []string{name, "default"} {
			have, err := readSysctl("net/ipv6/conf/" + device + "/disable_ipv6")
			if errors.Is(err, fs.ErrNotExist) {
				continue // there is no such device
			}
			if err == nil && have != "0" {
				return fmt.Errorf("%w: %s", ErrIPv6Off, turnIPv6On)
			}
			return err
		}
		return fmt.Errorf("%w: boot it without ipv6.disable=1", ErrIPv6Off)
	})
}

// turnIPv6On is the remedy on a kernel that can do IPv6.
const turnIPv6On = "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0"
