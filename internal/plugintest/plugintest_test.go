package plugintest

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/agentstate"
	"github.com/dcos/dcos-overlay/internal/cniconf"
)

// TestNew: the agent's file is the one that is named, with a lease that can be
// read, and the machine's own files are out of sight.
func TestNew(t *testing.T) {
	a := New(t, []byte(`{"name":"dual","ipam":{"agentConfig":"/elsewhere"}}`), []byte(Lease))
	conf, err := cniconf.Parse(a.Stdin, "")
	if err != nil {
		t.Fatal(err)
	}
	agent, err := agentconf.Load(conf.AgentConfig)
	if err != nil {
		t.Fatal(err)
	}
	held, err := (agentstate.Dir{State: agent.StateDir}).Held()
	if err != nil || held == nil || held.Agent.Overlay("dual") == nil {
		t.Errorf("the lease is %+v: %v", held, err)
	}
	if _, err := os.Stat(agentconf.DefaultRunDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", agentconf.DefaultRunDir, err)
	}
	a.Left(t)
	Answer(t, types.NewError(types.ErrInternal, "one line", ""))
}
