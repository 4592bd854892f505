package host

import (
	"path/filepath"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/ipam"
)

// places is where directories of reservations are noted that are not the
// default's. It follows from nothing that an agent's file says, so that a DEL
// finds them whatever has become of that.
func places() string { return filepath.Join(agentconf.DefaultRunDir, "stores") }

func defaultDataDir() string {
	usual := agentconf.Config{RunDir: agentconf.DefaultRunDir}
	return usual.DataDir()
}

// Pools are all that reservations of the overlay may be in: that of the
// agent's file, the default's, and those that were noted since the boot.
func (h *Host) Pools(overlay string) (out []ipam.Pool) {
	dirs := []string{h.Conf.DataDir()}
	if dirs[0] != defaultDataDir() {
		dirs = append(dirs, defaultDataDir())
	}
	for _, dir := range ipam.Noted(places(), dirs...) {
		out = append(out, ipam.Pool{Dir: dir, Overlay: overlay})
	}
	return out
}

// NotePlace makes the agent's place of reservations one of Pools, from now on.
func (h *Host) NotePlace() error {
	if h.Conf.DataDir() == defaultDataDir() {
		return nil
	}
	return ipam.Note(places(), h.Conf.DataDir())
}
