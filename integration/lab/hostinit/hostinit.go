package hostinit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// served is the environment variable that tells the second of init's two
// lives from the first.
const served = "DCOS_OVERLAY_LAB_INIT"

// Main is the program that the lab starts as a host's first process. It has
// two lives in one process: the first, with a Spec in JSON as argument, makes
// the root file system in one thread and execs itself there, so that all
// threads of the second have that root; the second serves.
func Main(spec string) error {
	if os.Getenv(served) != "" {
		if err := os.Unsetenv(served); err != nil {
			return err
		}
		return Serve()
	}
	var s Spec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return fmt.Errorf("reading the host's description: %w", err)
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("this process is not the first of a PID namespace; only the lab starts it")
	}
	if err := EnterRoot(s); err != nil {
		return fmt.Errorf("host %s: %w", s.Hostname, err)
	}
	env := []string{
		"PATH=" + filepath.Join(s.Bin, PathDir) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"LANG=C.UTF-8",
		served + "=1",
	}
	// The name of the program in ps says which host this is.
	if err := unix.Exec("/proc/self/exe", []string{"lab-host-" + s.Hostname, "init"}, env); err != nil {
		return fmt.Errorf("starting the second life of host %s: %w", s.Hostname, err)
	}
	return nil
}
