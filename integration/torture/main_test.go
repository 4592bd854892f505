// Package torture proves that the coordinators never give one thing twice:
// three of them and three etcd members run as processes on hosts of a lab, are
// killed, paused and cut off from each other at random while many clients
// claim and release, and are judged by etcd's whole history and by what the
// clients were told.
package torture

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// settings are the flags of this test, as in
//
//	go test ./integration/torture -run TestTorture -torture.duration=2m
type settings struct {
	duration time.Duration
	seed     uint64
	// bin is where the programs are built.
	bin string
}

// chosen is what TestMain has read.
var chosen settings

func TestMain(m *testing.M) {
	flag.DurationVar(&chosen.duration, "torture.duration", 20*time.Second, "how long clients and faults go on")
	flag.Uint64Var(&chosen.seed, "torture.seed", 0, "replays the faults that an earlier run printed; 0 takes a new one")
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	chosen.bin, err = lab.TempDir()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(chosen.bin)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	const module = "github.com/dcos/dcos-overlay/"
	// Each binary has the name of its directory.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", chosen.bin+string(filepath.Separator),
		module+"coordinator", module+"integration/etcd", module+"integration/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return m.Run(), nil
}
